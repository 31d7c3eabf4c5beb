package guest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var (
	options = Options{Tap: "tap-eth0", TapMAC: mac.Addr{2, 0, 0, 0, 0, 0x99}}
	gateway = mac.Addr{2, 0, 0, 0, 0, 1}
)

// pod is a pod interface with an address, routes, each written as "destination
// [gateway] [mtu N] [metric N] [table N]", and an IPv6 gateway that has said its MAC;
// empty: none.
func pod(t *testing.T, gateway6, address string, routes ...string) discover.Interface {
	t.Helper()
	in := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1500,
		Up: true, ARP: true, Ethernet: true,
	}
	if address != "" {
		in.Addresses = []discover.Address{{Prefix: netip.MustParsePrefix(address)}}
	}
	if gateway6 != "" {
		in.Gateway6 = &discover.Neighbor{Address: netip.MustParseAddr(gateway6), MAC: gateway}
	}
	for _, text := range routes {
		words := strings.Fields(text)
		r := discover.Route{Destination: netip.MustParsePrefix(words[0]), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST}
		words = words[1:]
		if len(words)%2 == 1 {
			r.Gateway = netip.MustParseAddr(words[0])
			words = words[1:]
		}
		for ; len(words) > 0; words = words[2:] {
			field := map[string]*int{"mtu": &r.MTU, "metric": &r.Metric, "table": &r.Table}[words[0]]
			if _, err := fmt.Sscan(words[1], field); err != nil {
				t.Fatal(err)
			}
		}
		in.Routes = append(in.Routes, r)
	}
	return in
}

func routesText(routes []Route) string {
	var all []string
	for _, r := range routes {
		s := r.Destination.String()
		if r.Gateway.IsValid() {
			s += " via " + r.Gateway.String()
		}
		if r.MTU != 0 {
			s += fmt.Sprintf(" mtu %d", r.MTU)
		}
		all = append(all, s)
	}
	return "[" + strings.Join(all, "] [") + "]"
}

func (v IPv4) text() string {
	gateway := "none"
	if v.Gateway.IsValid() {
		gateway = v.Gateway.String()
	}
	return strings.TrimSuffix(fmt.Sprintf("%s gateway %s server %s %s", v.Address, gateway, v.Server, routesText(v.Routes)), " []")
}

func (v IPv6) text() string {
	router := "none"
	if v.Router != nil {
		router = v.Router.LinkLocal.String()
	}
	return fmt.Sprintf("router %s on link %v routes %s", router, v.Prefixes, strings.ReplaceAll(routesText(v.Routes), "] [", " "))
}

// A VM has the pod's IPv4 address and ways, as DHCP can tell them.
func TestIPv4(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		in   discover.Interface
		want string
	}{
		{
			name: "connected route", in: pod(t, "", "10.244.1.7/24", "0.0.0.0/0 10.244.1.1", "10.244.0.0/16 10.244.1.1", "10.244.1.0/24"),
			want: "10.244.1.7/24 gateway 10.244.1.1 server 10.244.1.1 [10.244.0.0/16 via 10.244.1.1] [0.0.0.0/0 via 10.244.1.1]",
		},
		{
			name: "point to point, no connected route", in: pod(t, "", "10.244.0.2/24", "0.0.0.0/0 10.244.0.1", "10.244.0.0/24 10.244.0.1", "10.244.0.1/32"),
			want: "10.244.0.2/32 gateway 10.244.0.1 server 10.244.0.1 [10.244.0.1/32] [10.244.0.0/24 via 10.244.0.1] [0.0.0.0/0 via 10.244.0.1]",
		},
		{
			name: "gateway off the subnet", in: pod(t, "", "192.168.79.5/32", "0.0.0.0/0 169.254.1.1", "169.254.1.1/32"),
			want: "192.168.79.5/32 gateway 169.254.1.1 server 169.254.1.1 [169.254.1.1/32] [0.0.0.0/0 via 169.254.1.1]",
		},
		{
			name: "gateway that no route covers (onlink)", in: pod(t, "", "10.0.0.5/32", "0.0.0.0/0 10.0.0.1"),
			want: "10.0.0.5/32 gateway 10.0.0.1 server 10.0.0.1 [10.0.0.1/32] [0.0.0.0/0 via 10.0.0.1]",
		},
		{
			name: "MTU on the default route", in: pod(t, "", "10.0.1.5/32", "0.0.0.0/0 10.0.1.1 mtu 1450", "10.0.1.1/32"),
			want: "10.0.1.5/32 gateway 10.0.1.1 server 10.0.1.1 [10.0.1.1/32] [0.0.0.0/0 via 10.0.1.1 mtu 1450]",
		},
		{
			name: "no gateway", in: pod(t, "", "10.9.0.1/24", "10.9.0.0/24"),
			want: "10.9.0.1/24 gateway none server 169.254.0.1 [169.254.0.1/32]",
		},
		{
			name: "no gateway, no network", in: pod(t, "", "10.9.0.7/32"),
			want: "10.9.0.7/32 gateway none server 169.254.0.1 [169.254.0.1/32]",
		},
		{
			name: "no gateway, a network of which the server's address is", in: pod(t, "", "169.254.0.7/24", "169.254.0.0/24"),
			want: "169.254.0.7/24 gateway none server 169.254.255.1 [169.254.255.1/32]",
		},
		{
			name: "no gateway, all of 169.254", in: pod(t, "", "169.254.7.7/16", "169.254.0.0/16"),
			want: "169.254.7.7/16 gateway none server 169.254.0.1",
		},
		{
			name: "/31, odd gateway", in: pod(t, "", "10.9.0.8/31", "10.9.0.8/31", "0.0.0.0/0 10.9.0.9"),
			want: "10.9.0.8/32 gateway 10.9.0.9 server 10.9.0.9 [10.9.0.9/32] [0.0.0.0/0 via 10.9.0.9]",
		},
		{
			name: "/31, even gateway", in: pod(t, "", "10.9.0.9/31", "10.9.0.8/31", "0.0.0.0/0 10.9.0.8"),
			want: "10.9.0.9/32 gateway 10.9.0.8 server 10.9.0.8 [10.9.0.8/32] [0.0.0.0/0 via 10.9.0.8]",
		},
		{
			name: "/31 without a gateway", in: pod(t, "", "10.9.0.8/31", "10.9.0.8/31"),
			want: "10.9.0.8/32 gateway none server 169.254.0.1 [10.9.0.9/32] [169.254.0.1/32]",
		},
		{
			name: "/30", in: pod(t, "", "10.9.0.10/30", "10.9.0.8/30", "0.0.0.0/0 10.9.0.9"),
			want: "10.9.0.10/30 gateway 10.9.0.9 server 10.9.0.9 [0.0.0.0/0 via 10.9.0.9]",
		},
		{
			name: "the last address of the network", in: pod(t, "", "10.9.0.255/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1"),
			want: "10.9.0.255/32 gateway 10.9.0.1 server 10.9.0.1 [10.9.0.1/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.1]",
		},
		{
			name: "the first address of the network", in: pod(t, "", "10.9.0.0/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.1"),
			want: "10.9.0.0/32 gateway 10.9.0.1 server 10.9.0.1 [10.9.0.1/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.1]",
		},
		{
			name: "a gateway with the first address of the network", in: pod(t, "", "10.9.0.7/24", "10.9.0.0/24", "0.0.0.0/0 10.9.0.0"),
			want: "10.9.0.7/32 gateway 10.9.0.0 server 10.9.0.0 [10.9.0.0/32] [10.9.0.0/24] [0.0.0.0/0 via 10.9.0.0]",
		},
		{
			name: "addresses alone that end with 255 and 0", in: pod(t, "", "10.9.0.255/32", "0.0.0.0/0 10.9.1.0"),
			want: "10.9.0.255/32 gateway 10.9.1.0 server 10.9.1.0 [10.9.1.0/32] [0.0.0.0/0 via 10.9.1.0]",
		},
		{
			name: "the better of two, other tables, narrower first", in: pod(t, "", "10.9.0.7/24",
				"0.0.0.0/0 10.9.0.2 metric 100", "0.0.0.0/0 10.9.0.1 metric 50", "0.0.0.0/0 10.9.0.9 table 100",
				"172.16.0.0/12 10.9.0.1", "172.16.5.0/24 10.9.0.3", "192.0.2.0/24", "10.9.0.0/24"),
			want: "10.9.0.7/24 gateway 10.9.0.1 server 10.9.0.1 [192.0.2.0/24] [172.16.5.0/24 via 10.9.0.3] [172.16.0.0/12 via 10.9.0.1] [0.0.0.0/0 via 10.9.0.1]",
		},
	} {
		n := Same(c.in, options)
		if n.IPv4 == nil {
			t.Fatalf("%s: no IPv4", c.name)
		}
		if got := n.IPv4.text(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if err := n.Validate(); err != nil {
			t.Error(err)
		}
		asked := slices.Contains(n.Answers, Neighbor{n.IPv4.Server, options.TapMAC})
		if asked != !n.IPv4.Gateway.IsValid() {
			t.Errorf("%s: the kernel answers for %v", c.name, n.Answers)
		}
	}
	if n := Same(pod(t, "", ""), options); n.IPv4 != nil || n.IPv6 != nil || n.Addresses() != nil || n.Answers != nil || n.Omitted != nil {
		t.Errorf("an interface without an address becomes %+v", n)
	}
}

// A VM has the pod's IPv6 ways, as router advertisements can tell them.
func TestIPv6(t *testing.T) {
	t.Parallel()
	connected := []string{"fd00::/64 metric 256", "fe80::/64 metric 256", "::/0 fd00::1 metric 1024"}
	for _, c := range []struct {
		name string
		in   discover.Interface
		want string
	}{
		{
			name: "connected route", in: pod(t, "fd00::1", "fd00::7/64", connected...),
			want: "router fe80::ff:fe00:1 on link [fd00::/64] routes [::/0]",
		},
		{
			name: "longer prefix", in: pod(t, "fd00::1", "fd00::7/112", "fd00::/112 metric 256", "::/0 fd00::1 metric 1024"),
			want: "router fe80::ff:fe00:1 on link [fd00::/112] routes [::/0]",
		},
		{
			name: "point to point", in: pod(t, "fd00::1", "fd00::7/64", "fd00::1/128", "fd00::/64 fd00::1", "::/0 fd00::1 mtu 1450"),
			want: "router fe80::ff:fe00:1 on link [fd00::1/128] routes [fd00::/64 ::/0 mtu 1450]",
		},
		{
			name: "gateway link-local", in: pod(t, "fe80::1", "fd00::7/128", "fd00::7/128 metric 256", "::/0 fe80::1 metric 1024"),
			want: "router fe80::1 on link [] routes [::/0]",
		},
		{
			name: "no default route", in: pod(t, "fd00::1", "fd00::7/64", "fd00::/64", "fd10::/32 fd00::1", "fd20::/32 fd00::2"),
			want: "router fe80::ff:fe00:1 on link [fd00::/64] routes [fd10::/32]",
		},
		{
			name: "more on the link", in: pod(t, "", "fd00::7/64", "fd00::/64 metric 256", "fd00::/64 metric 1024", "fd30::/112 metric 1024", "fd40::9/128 metric 1024"),
			want: "router none on link [fd00::/64 fd30::/112 fd40::9/128] routes []",
		},
		{
			name: "the better of two, other tables", in: pod(t, "fd00::1", "fd00::7/64",
				"fd00::/64 metric 256", "fd00::/64 fd00::1 metric 100", "::/0 fd00::1 metric 50", "::/0 fd00::2 mtu 1300 metric 60", "fd50::/64 table 100"),
			want: "router fe80::ff:fe00:1 on link [] routes [fd00::/64 ::/0]",
		},
		{
			name: "gateway does not answer", in: pod(t, "", "fd00::7/64", connected...),
			want: "router none on link [fd00::/64] routes []",
		},
	} {
		n := Same(c.in, options)
		if n.IPv6 == nil {
			t.Fatalf("%s: no IPv6", c.name)
		}
		if got := n.IPv6.text(); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
		if err := n.Validate(); err != nil {
			t.Error(err)
		}
		renamed := n.RenamedRouter() != nil
		if r := n.IPv6.Router; renamed != (r != nil && r.LinkLocal != r.Gateway) || len(n.Answers) > 0 {
			t.Errorf("%s: renamed is %t, the kernel answers for %v", c.name, renamed, n.Answers)
		}
		if a, m := n.Advertiser(); n.IPv6.Router == nil && (m != options.TapMAC || a != m.LinkLocal()) {
			t.Errorf("%s: %s at %s advertises", c.name, a, m)
		}
	}
	blackhole := pod(t, "fd00::1", "fd00::7/64", append(connected, "fd60::/32")...)
	blackhole.Routes[3].Type = unix.RTN_BLACKHOLE
	if n := Same(blackhole, options); len(n.IPv6.Prefixes) != 1 {
		t.Errorf("a route to nowhere is told: %v", n.IPv6.Prefixes)
	}
}

// What is chosen comes before what the pod has.
func TestOptions(t *testing.T) {
	t.Parallel()
	in := pod(t, "fd00::1", "10.9.0.7/24")
	in.Addresses = append(in.Addresses, discover.Address{Prefix: netip.MustParsePrefix("fd00::7/64")})
	n := Same(in, options)
	if n.MAC != in.MAC || n.MTU != 1500 || n.Queues != 1 || !n.Guard || len(n.Addresses()) != 2 {
		t.Errorf("got %+v", n)
	}
	n = Same(in, Options{Tap: "t", MAC: mac.Addr{2, 1}, MTU: 1400, Queues: 4, NoGuard: true, NoIPv6: true})
	if n.MAC != (mac.Addr{2, 1}) || n.MTU != 1400 || n.Queues != 4 || n.Guard || n.IPv6 != nil || len(n.Answers) != 0 {
		t.Errorf("got %+v", n)
	}
	in.MTU = 65535
	if n = Same(in, Options{}); n.MTU != 65521 {
		t.Errorf("MTU is %d, more than a tap has", n.MTU)
	}
}

// The VM has all of the CNI's IPv4 addresses, first the one that DHCP gives.
func TestAddresses(t *testing.T) {
	t.Parallel()
	in := pod(t, "", "10.9.0.8/24")
	add := func(address string, scope discover.Scope, flags uint32) {
		in.Addresses = append(in.Addresses, discover.Address{Prefix: netip.MustParsePrefix(address), Scope: scope, Flags: flags})
	}
	in.Addresses[0].Flags = unix.IFA_F_SECONDARY
	add("10.9.0.7/24", 0, 0)
	add("10.9.0.9/24", unix.RT_SCOPE_LINK, 0)
	add("fd00::7/64", 0, unix.IFA_F_PERMANENT)
	n := Same(in, options)
	if got := fmt.Sprint(n.Addresses()); got != "[10.9.0.7/24 10.9.0.8/24 fd00::7/64]" {
		t.Errorf("got %s", got)
	}
	if err := n.Validate(); err != nil {
		t.Error(err)
	}
}
