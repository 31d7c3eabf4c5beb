package dhcp6_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
)

func ExampleLease_Reply() {
	mac := net.HardwareAddr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	lease := dhcp6.Lease{
		MAC:     mac,
		Address: netip.MustParseAddr("fd00:10:244:1::7"),
		Server:  netip.MustParseAddr("fe80::1"),
	}
	solicit, err := dhcpv6.NewSolicit(mac)
	if err != nil {
		log.Fatal(err)
	}
	advertise, err := lease.Reply(solicit, false)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(advertise.MessageType, advertise.Options.OneIANA().Options.OneAddress().IPv6Addr)
	// Output: ADVERTISE fd00:10:244:1::7
}
