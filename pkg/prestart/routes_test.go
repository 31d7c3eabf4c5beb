package prestart

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// What can't be expressed is left out, and named, rather than told as if it were
// a plain route.
func TestPeculiarRoutes(t *testing.T) {
	for _, c := range []struct {
		change func(*discover.Route)
		why    string
	}{
		{func(r *discover.Route) { r.Gateway = netip.MustParseAddr("fe80::1") }, "gateway fe80::1 is of the other family"},
		{func(r *discover.Route) { r.TOS = 0x10 }, "type of service 0x10"},
		{func(r *discover.Route) { r.Encap = true }, "encapsulates"},
	} {
		p := planFor(t, "10.9.0.7/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1", "172.16.0.0/12 10.9.0.1")
		c.change(&p.Interface.Routes[2])
		l, _ := newLease(p, discover.Pod{}, true, LeaseSettings{})
		if got := leaseText(l); strings.Contains(got, "172.16") || !strings.Contains(got, "[0.0.0.0/0 via 10.9.0.1]") {
			t.Errorf("%s: %s", c.why, got)
		}
		out := omitted(p, defaultRoutes{ipv4: "eth0", ipv6: "eth0"})
		if len(out) != 1 || !strings.Contains(out[0].What, "172.16.0.0/12") || !strings.Contains(out[0].Why, c.why) {
			t.Errorf("%s: left out %v", c.why, out)
		}
	}
	from := discover.Route{Destination: netip.MustParsePrefix("fd00:9::/64"), From: netip.MustParsePrefix("fd00::/64"), Table: 254, Type: 1}
	plain := discover.Route{Destination: netip.MustParsePrefix("fd00:8::/64"), Table: 254, Type: 1}
	if told := routes6(discover.Interface{Routes: []discover.Route{from, plain}}); len(told) != 1 || told[0].Destination != plain.Destination {
		t.Errorf("told of IPv6: %+v", told)
	}
}
