package prestart

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// What the pod has and the VM does not get is said, each thing once, and nothing
// else is.
func TestOmitted(t *testing.T) {
	routes := []string{
		"0.0.0.0/0 10.9.0.1", "0.0.0.0/0 10.9.0.2 metric 100", "10.9.0.0/24", "172.16.0.0/12 10.9.0.1 mtu 1300",
		"::/0 fd00::1", "fd00:5::/64 fd00::2", "fd00:6::/64 fd00::1", "fd00::/64", "fe80::/64",
	}
	dual := func(t *testing.T) prepare.Plan {
		p := planFor(t, "10.9.0.7/24", routes...)
		p.Interface.Addresses = append(p.Interface.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00::7/64"), Flags: 0x80})
		p.Interface.Gateway6 = &discover.Neighbor{Address: netip.MustParseAddr("fd00::1"), MAC: p.MAC}
		p.IPv6 = &prepare.IPv6{Address: netip.MustParsePrefix("fd00::7/64"), Router: &prepare.Router{LinkLocal: netip.MustParseAddr("fe80::1"), MAC: p.MAC, Answered: true}}
		return p
	}
	common := []string{
		"route default via 10.9.0.2 metric 100: there is a better one to the same destination",
		"a setting of route 172.16.0.0/12 via 10.9.0.1 mtu 1300: its MTU is 1300, and a VM is told of one MTU for all",
		"route fd00:5::/64 via fd00::2: an IPv6 VM is told of one router, and that is fd00::1",
	}
	for _, c := range []struct {
		name     string
		change   func(*prepare.Plan)
		defaults defaultRoutes
		want     []string
	}{
		{"all that can be", func(*prepare.Plan) {}, defaultRoutes{"eth0", "eth0"}, common},
		{"another NIC's default routes", func(*prepare.Plan) {}, defaultRoutes{"net1", ""}, append([]string{
			"route default via 10.9.0.1: the VM has the default route of IPv4 by net1",
			"route default via 10.9.0.2 metric 100: the VM has the default route of IPv4 by net1",
			"route default via fd00::1: no NIC of the VM is to have the default route of IPv6",
		}, common[1:]...)},
		{"no IPv6", func(p *prepare.Plan) { p.IPv6 = nil }, defaultRoutes{"eth0", "eth0"}, append([]string{
			"address fd00::7/64: the VM gets no IPv6",
			"route default via fd00::1: the VM gets no IPv6",
			"route fd00:5::/64 via fd00::2: the VM gets no IPv6",
			"route fd00:6::/64 via fd00::1: the VM gets no IPv6",
			"route fd00::/64: the VM gets no IPv6",
		}, common[:2]...)},
		{"neighbours", func(p *prepare.Plan) {
			p.Interface.Neighbors = []discover.Neighbor{
				{Address: netip.MustParseAddr("10.9.0.1"), MAC: p.MAC}, {Address: netip.MustParseAddr("10.9.0.2"), MAC: mac.Addr{}},
			}
		}, defaultRoutes{"eth0", "eth0"}, append([]string{"permanent neighbor 10.9.0.2 at 00:00:00:00:00:00:00:00: its MAC is not of Ethernet"}, common...)},
		{"what discover knows", func(p *prepare.Plan) {
			p.Interface.Omitted = []discover.Omission{{What: "address 10.9.0.8/24", Why: "one is given"}}
		}, defaultRoutes{"eth0", "eth0"}, append([]string{"address 10.9.0.8/24: one is given"}, common...)},
		{"another source", func(p *prepare.Plan) { p.Interface.Routes[2].Source = netip.MustParseAddr("10.9.0.8") }, defaultRoutes{"eth0", "eth0"}, append([]string{
			"a setting of route 10.9.0.0/24 src 10.9.0.8: its packets have the source 10.9.0.8, and a VM is told of one address",
		}, common...)},
	} {
		p := dual(t)
		c.change(&p)
		var got []string
		for _, o := range omitted(p, c.defaults) {
			got = append(got, o.String())
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
	if got := omitted(planFor(t, "10.9.0.7/24", "0.0.0.0/0 10.9.0.1", "10.9.0.0/24"), defaultRoutes{"eth0", ""}); len(got) > 0 {
		t.Errorf("of a plain pod: %v", got)
	}
}
