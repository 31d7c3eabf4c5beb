package discover_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// What sets a route apart from a plain one is read.
func TestReadsPeculiarities(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	ns.IP(t, "link add eth0 type veth peer name eth2", "link set eth0 up", "link set eth2 up",
		"addr add 10.1.0.7/24 dev eth0", "addr add 10.1.0.17/24 dev eth2", "addr add fd00:1::7/64 dev eth0 nodad",
		"route add 10.90.0.0/16 via inet6 fe80::1 dev eth0", "route add 10.91.0.0/16 tos 0x10 via 10.1.0.1 dev eth0",
		"route add 10.92.0.0/16 nexthop via 10.1.0.1 dev eth0 nexthop via 10.1.0.1 dev eth2",
		"route add fd00:91::/64 from fd00:1::/64 via fd00:1::1 dev eth0",
		"nexthop add id 7 via 10.1.0.1 dev eth0", "route add 10.93.0.0/16 nhid 7",
		"route add blackhole 10.70.0.0/16 src 10.1.0.7", "route add local 10.66.0.0/24 dev eth0", "neigh add proxy 10.1.0.44 dev eth0",
		"link add mv0 link eth0 "+podtest.Macvlan)
	var interfaces []discover.Interface
	if err := ns.Do(func() (err error) {
		interfaces, err = discover.ReadInterfaces()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	byName := func(name string) discover.Interface {
		return interfaces[slices.IndexFunc(interfaces, func(in discover.Interface) bool { return in.Name == name })]
	}
	in, other := byName("eth0"), byName("eth2")
	to := func(routes []discover.Route, destination string) (r discover.Route) {
		for _, r := range routes {
			if r.Destination == netip.MustParsePrefix(destination) {
				return r
			}
		}
		t.Errorf("no route to %s", destination)
		return r
	}
	shared := func(in discover.Interface) (routes []discover.Route) {
		for _, r := range in.Shared {
			routes = append(routes, r.Route)
		}
		return routes
	}
	for what, ok := range map[string]bool{
		"gateway of the other family": to(in.Routes, "10.90.0.0/16").Gateway == netip.MustParseAddr("fe80::1"),
		"type of service":             to(in.Routes, "10.91.0.0/16").TOS == 0x10,
		"source":                      to(in.Routes, "fd00:91::/64").From == netip.MustParsePrefix("fd00:1::/64"),
		"links":                       slices.Equal(to(in.Routes, "10.92.0.0/16").Links, []int{in.Index, other.Index}),
		"the other's next hop":        len(to(shared(other), "10.92.0.0/16").Links) == 2,
		"nexthop object":              to(in.Routes, "10.93.0.0/16").NextHop == 7 && to(shared(in), "10.93.0.0/16").NextHop == 7,
		"blackhole":                   len(to(shared(in), "10.70.0.0/16").Links) == 0,
		"table local":                 to(in.Routes, "10.66.0.0/24").Table == 255,
		"first":                       to(in.Routes, "10.1.0.0/24").First && !to(other.Routes, "10.1.0.0/24").First,
		"proxied neighbour":           len(in.Proxies) == 1 && in.Proxies[0].Address == netip.MustParseAddr("10.1.0.44"),
		"macvlan":                     in.TakenBy == "macvlan mv0" && other.TakenBy == "",
	} {
		if !ok {
			t.Errorf("%s: not in %+v and %+v", what, in, other)
		}
	}
}
