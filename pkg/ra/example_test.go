package ra_test

import (
	"fmt"
	"log"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

func ExampleAdvertisement_Normalize() {
	a := ra.Advertisement{
		Router:         netip.MustParseAddr("fe80::ecee:eeff:feee:eeee"),
		MAC:            mac.Addr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee},
		Managed:        true,
		RouterLifetime: ra.MaxRouterLifetime,
		Routes:         []netip.Prefix{netip.MustParsePrefix("::/0")}, // the default route, without end
		Search:         []string{"cluster.local", "not a name"},
	}
	a, left := a.Normalize()
	if err := a.Validate(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(a.Search)
	fmt.Println(left)
	// Output:
	// [cluster.local]
	// [search domain "not a name" left out: it holds a character other than letters, digits, '-' and '_']
}
