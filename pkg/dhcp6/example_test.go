package dhcp6_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

func ExampleLease_Reply() {
	guest := mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	l := dhcp6.Lease{
		MAC:     guest,
		Address: netip.MustParseAddr("fd00:10:244:1::7"),
		Server:  netip.MustParseAddr("fe80::1"),
	}
	solicit, err := dhcpv6.NewSolicit(guest[:])
	if err != nil {
		log.Fatal(err)
	}
	advertise, err := l.Reply(solicit, false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(advertise.MessageType, advertise.Options.OneIANA().Options.OneAddress().IPv6Addr)
	// Output: ADVERTISE fd00:10:244:1::7
}
