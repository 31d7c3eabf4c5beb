package ra

import (
	"flag"
	"net/netip"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	guestMAC   = mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	guestLocal = netip.MustParseAddr("fe80::42:aff:fef4:107")
	routerMAC  = mac.Addr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	router     = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
)

// calico is what a pod of Calico needs: nothing is on the link but the router.
func calico() Advertisement {
	return Advertisement{
		Router: router, MAC: routerMAC, Managed: true, Other: true,
		RouterLifetime: MaxRouterLifetime, MTU: 1450,
		Routes: []netip.Prefix{netip.MustParsePrefix("::/0")},
		DNS:    []netip.Addr{netip.MustParseAddr("fd00:10:96::a")},
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
	}
}

// onLink is what a pod needs with a /64 on the link.
func onLink() Advertisement {
	a := calico()
	a.Prefixes = []netip.Prefix{netip.MustParsePrefix("fd00:10:244:1::/64")}
	a.Routes = append(a.Routes, netip.MustParsePrefix("fd00:10:244::/56"), netip.MustParsePrefix("2001:db8::1/128"))
	a.Other = false
	return a
}

// golden compares with a file under testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	podtest.Golden(t, name, got, *update)
}
