package ra_test

import (
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

func ExampleAdvertisement_Encode() {
	a := ra.Advertisement{
		Router:         netip.MustParseAddr("fe80::ecee:eeff:feee:eeee"),
		MAC:            net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee},
		Managed:        true,
		RouterLifetime: ra.MaxRouterLifetime,
		Routes:         []netip.Prefix{netip.MustParsePrefix("::/0")}, // the default route, without end
		Search:         []string{"cluster.local", "not a name"},
	}
	messages, left, err := a.Encode()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(messages), len(messages[0]))
	fmt.Println(left)
	// Output:
	// 1 56
	// [search domain "not a name" left out: it holds a character other than letters, digits, '-' and '_']
}
