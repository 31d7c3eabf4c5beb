package guest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What the pod has and its VM does not get is said, each thing once, and nothing
// else is.
func TestOmitted(t *testing.T) {
	t.Parallel()
	routes := []string{
		"0.0.0.0/0 10.9.0.1", "0.0.0.0/0 10.9.0.2 metric 100", "10.9.0.0/24", "172.16.0.0/12 10.9.0.1 mtu 1300",
		"::/0 fd00::1", "fd00:5::/64 fd00::2", "fd00:5::/64 fd00::1 metric 9", "fd00:6::/64 fd00::1", "fd00::/64", "fe80::/64",
	}
	common := []string{
		"route default via 10.9.0.2 metric 100: there is a better one to the same destination",
		"a setting of route 172.16.0.0/12 via 10.9.0.1 mtu 1300: its MTU is 1300, and the VM gets one MTU for all routes",
		"route fd00:5::/64 via fd00::2: the VM gets one IPv6 router, and that is fd00::1",
		"route fd00:5::/64 via fd00::1 metric 9: there is a better one to the same destination",
	}
	for _, c := range []struct {
		name   string
		change func(*discover.Interface, *Options)
		want   []string
	}{
		{"all that can be", func(*discover.Interface, *Options) {}, common},
		{"no IPv6", func(_ *discover.Interface, o *Options) { o.NoIPv6 = true }, append([]string{
			"address fd00::7/64: the VM gets no IPv6",
			"route default via fd00::1: the VM gets no IPv6",
			"route fd00:5::/64 via fd00::2: the VM gets no IPv6",
			"route fd00:5::/64 via fd00::1 metric 9: the VM gets no IPv6",
			"route fd00:6::/64 via fd00::1: the VM gets no IPv6",
			"route fd00::/64: the VM gets no IPv6",
		}, common[:2]...)},
		{"no IPv4", func(in *discover.Interface, _ *Options) {
			in.Addresses, in.Routes = in.Addresses[1:], in.Routes[2:5]
			in.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("10.9.0.1"), MAC: gateway}}
		}, []string{
			"route 10.9.0.0/24: the VM gets no IPv4 address here, and so nothing else by DHCP",
			"route 172.16.0.0/12 via 10.9.0.1 mtu 1300: the VM gets no IPv4 address here, and so nothing else by DHCP",
			"permanent neighbor 10.9.0.1 at 02:00:00:00:00:01: the VM gets no address of its family",
		}},
		{"no gateway that answers", func(in *discover.Interface, _ *Options) { in.Gateway6, in.Routes = nil, in.Routes[4:5] }, []string{
			"route default via fd00::1: its gateway fd00::1 does not answer",
		}},
		{"neighbors", func(in *discover.Interface, _ *Options) {
			in.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("10.9.0.1"), MAC: gateway}, {Address: netip.MustParseAddr("10.9.0.2")}}
		}, append([]string{"permanent neighbor 10.9.0.2: its MAC is not an Ethernet address"}, common...)},
		{"what discover knows", func(in *discover.Interface, _ *Options) {
			in.Omitted = []discover.Omission{{What: "address 10.9.0.8/24", Why: "one is given"}}
		}, append([]string{"address 10.9.0.8/24: one is given"}, common...)},
		{"another source", func(in *discover.Interface, _ *Options) { in.Routes[2].Source = netip.MustParseAddr("10.9.0.8") }, append([]string{
			"a setting of route 10.9.0.0/24 src 10.9.0.8: its packets have the source 10.9.0.8, and the VM gets one address",
		}, common...)},
		{"the same again", func(in *discover.Interface, _ *Options) {
			for _, r := range slices.Clone(in.Routes[:4:4]) {
				r.Metric += 1000
				in.Routes = append(in.Routes, r)
			}
			in.Routes = slices.DeleteFunc(in.Routes, func(r discover.Route) bool { return r.Metric == 1100 })
		}, common},
		{"a tiny MTU", func(in *discover.Interface, _ *Options) { in.Routes[0].MTU = 60 }, append([]string{
			"a setting of route default via 10.9.0.1 mtu 60: its MTU is 60, which is too small for the VM",
		}, common...)},
	} {
		in, o := pod(t, "fd00::1", "10.9.0.7/24", routes...), options
		in.Addresses = append(in.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00::7/64"), Flags: 0x80})
		c.change(&in, &o)
		var got []string
		for _, o := range Same(in, o).Omitted {
			got = append(got, o.String())
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got\n%q\nwant\n%q", c.name, got, c.want)
		}
	}
	if n := Same(pod(t, "", "10.9.0.7/24", "0.0.0.0/0 10.9.0.1", "10.9.0.0/24"), options); len(n.Omitted) > 0 {
		t.Errorf("of a plain pod: %v", n.Omitted)
	}
}

// What can't be expressed is left out, and named, rather than told as if it were
// a plain route.
func TestInexpressibleRoutes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		change func(*discover.Route)
		why    string
	}{
		{func(r *discover.Route) { r.Gateway = netip.MustParseAddr("fe80::1") }, "gateway fe80::1 is of the other address family"},
		{func(r *discover.Route) { r.TOS = 0x10 }, "type of service 0x10"},
		{func(r *discover.Route) { r.Encap = true }, "encapsulates"},
	} {
		in := pod(t, "", "10.9.0.7/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1", "172.16.0.0/12 10.9.0.1")
		c.change(&in.Routes[2])
		n := Same(in, options)
		if got := n.IPv4.text(); got != "10.9.0.7/24 gateway 10.9.0.1 server 10.9.0.1 [0.0.0.0/0 via 10.9.0.1]" {
			t.Errorf("%s: %s", c.why, got)
		}
		if out := n.Omitted; len(out) != 1 || !strings.Contains(out[0].What, "172.16.0.0/12") || !strings.Contains(out[0].Why, c.why) {
			t.Errorf("%s: left out %v", c.why, out)
		}
	}
	in := pod(t, "", "fd00::7/64", "fd00:9::/64", "fd00:8::/64", "::/0")
	in.Routes[0].From = netip.MustParsePrefix("fd00::/64")
	n := Same(in, options)
	if got := n.IPv6.text(); got != "router none on link [fd00:8::/64] routes []" || len(n.Omitted) != 2 || !n.IPv6.HasDefault {
		t.Errorf("told of IPv6: %s, left out %v", got, n.Omitted)
	}
}

// The kernel answers for the pod's permanent neighbors, in any order that it lists
// them, and for whom the VM is told of though nobody has the address.
func TestAnswers(t *testing.T) {
	t.Parallel()
	neighbor := func(a string) discover.Neighbor {
		return discover.Neighbor{Address: netip.MustParseAddr(a), MAC: gateway}
	}
	in := pod(t, "fd00::1", "10.9.0.7/24")
	in.Addresses = append(in.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00::7/64"), Flags: 0x80})
	in.Neighbors = []discover.Neighbor{neighbor("fd00::1"), neighbor("192.0.2.1"), neighbor("10.9.0.9")}
	want := []Neighbor{
		{netip.MustParseAddr("10.9.0.9"), gateway},
		{netip.MustParseAddr("169.254.0.1"), options.TapMAC},
		{netip.MustParseAddr("192.0.2.1"), gateway},
		{netip.MustParseAddr("fd00::1"), gateway},
		{gateway.LinkLocal(), gateway},
	}
	n := Same(in, options)
	if got := n.Answers; !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if n.RenamedRouter() != nil { // it would not answer
		t.Error("the router is asked by its own address")
	}
	o := options
	o.NoGuard = true // then nothing keeps other hosts from hearing what the VM asks
	if got := Same(in, o).Answers; slices.Contains(got, want[1]) {
		t.Errorf("without the guard: %v", got)
	}
	in.Gateway6.Address = netip.MustParseAddr("fe80::1")
	in.Neighbors = []discover.Neighbor{{Address: netip.MustParseAddr("10.9.0.9"), MAC: mac.Addr{}}}
	if got := Same(in, options).Answers; !slices.Equal(got, want[1:2]) {
		t.Errorf("of a router with a link-local address: %v", got)
	}
}
