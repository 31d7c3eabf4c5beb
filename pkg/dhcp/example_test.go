package dhcp_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func ExampleLease_Reply() {
	guest := mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	gateway := netip.MustParseAddr("169.254.1.1")
	l := dhcp.Lease{
		MAC:     guest,
		Address: netip.MustParsePrefix("10.244.1.7/32"),
		Server:  gateway,
		Routes: []dhcp.Route{
			{Destination: netip.PrefixFrom(gateway, 32)}, // on-link
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway},
		},
	}
	discover, err := dhcpv4.NewDiscovery(guest[:])
	if err != nil {
		log.Fatal(err)
	}
	offer, err := l.Reply(discover)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(offer.MessageType(), offer.YourIPAddr)
	fmt.Println(offer.ClasslessStaticRoute())
	// Output:
	// OFFER 10.244.1.7
	// [route to 169.254.1.1/32 via 0.0.0.0 route to 0.0.0.0/0 via 169.254.1.1]
}

func ExampleParseOption() {
	for _, s := range []string{"42=10.0.0.1,10.0.0.2", "252=http://proxy/wpad.dat", "43=0x0104", "51=60"} {
		option, err := dhcp.ParseOption(s)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%d %x\n", option.Code, option.Value)
	}
	// Output:
	// 42 0a0000010a000002
	// 252 687474703a2f2f70726f78792f777061642e646174
	// 43 0104
	// set DHCP option 51: not possible, it follows from the lease's duration
}
