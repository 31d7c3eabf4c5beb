package discover_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// soon is how long a test waits for what must not come.
const soon = 400 * time.Millisecond

func readSoon(t *testing.T, ns *podtest.NS, names ...string) (discover.Pod, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	return readPod(ctx, t, ns, discover.Options{Interfaces: names})
}

func mustRead(t *testing.T, ns *podtest.NS, names ...string) []discover.Interface {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	pod, err := readPod(ctx, t, ns, discover.Options{Interfaces: names})
	if err != nil {
		t.Error(err)
		return make([]discover.Interface, max(1, len(names)))
	}
	return pod.Interfaces
}

// omitted are the omissions of an interface, as text.
func omitted(in discover.Interface) []string {
	var out []string
	for _, o := range in.Omitted {
		out = append(out, o.String())
	}
	return out
}

// plug makes eth0 in a new pod, with its other end, peer, in a new node.
func plug(t *testing.T, lines ...string) (pod, node *podtest.NS) {
	t.Helper()
	pod, node = podtest.New(t), podtest.New(t)
	pod.IP(t, append([]string{"link add eth0 type veth peer name peer netns " + node.Path(), "link set eth0 up"}, lines...)...)
	node.IP(t, "link set peer up")
	return pod, node
}

// A second interface that is there for the other family only is not the pod's.
func TestDefaultInterfaceOfTwoFamilies(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.AWSIPv6)
	in := mustRead(t, pod.NS)[0]
	if ip, _ := in.IPv6(); in.Name != "eth0" || ip != pod.IPv6 || in.Gateway6 == nil {
		t.Errorf("got %s with %s", in.Name, ip)
	}
	want := []string{"interface v4if0 (169.254.172.10/22, the IPv4 default route): it is not one of the VM's interfaces"}
	if d := cmp.Diff(want, omitted(in)); d != "" {
		t.Errorf("omitted (-want +got):\n%s", d)
	}
	both := mustRead(t, pod.NS, "eth0", "v4if0")
	if both[0].HasDefaultRoute(true) || !both[0].HasDefaultRoute(false) || !both[1].HasDefaultRoute(true) || both[1].HasDefaultRoute(false) {
		t.Errorf("default routes: %+v", both)
	}
	if o := omitted(both[0]); len(o) > 0 {
		t.Errorf("omitted with both: %q", o)
	}
	// Whatever the interfaces are called.
	pod.IP(t, "link set eth0 down", "link set eth0 name ens5", "link set ens5 up", "addr add 2001:db8:a:1::5/128 dev ens5 nodad",
		"route add fe80::1/128 dev ens5", "route add default via fe80::1 dev ens5")
	if in := mustRead(t, pod.NS)[0]; in.Name != "ens5" {
		t.Errorf("got %s, want ens5", in.Name)
	}
}

// An address is one whatever block it is of, if its scope is global.
func TestAddressesOfAnyBlock(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"169.254.7.7/16", "240.1.2.3/24", "0.1.2.3/24", "100.64.0.7/32", "192.0.2.7/31"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			pod, _ := plug(t, "addr add "+address+" dev eth0 scope global")
			if ip, ok := mustRead(t, pod)[0].IPv4(); !ok || ip.String() != address {
				t.Errorf("got %s", ip)
			}
		})
	}
}

// An eth0 that is down is waited for, though another interface is up.
func TestDownIsWaitedFor(t *testing.T) {
	t.Parallel()
	pod, _ := plug(t, "link set eth0 down", "addr add 10.8.0.7/24 dev eth0",
		"link add net1 type veth peer name peer1", "link set net1 up", "link set peer1 up", "addr add 10.9.0.7/24 dev net1", "route add default via 10.9.0.1")
	if _, err := readSoon(t, pod); err == nil || !strings.Contains(err.Error(), "interface eth0 is down") {
		t.Errorf("got %v", err)
	}
	if in, err := readSoon(t, pod, "net1"); err != nil || in.Interfaces[0].Name != "net1" {
		t.Errorf("net1, named: %v", err)
	}
	pod.IP(t, "link set eth0 up", "route replace default via 10.8.0.1")
	if in := mustRead(t, pod)[0]; in.Name != "eth0" {
		t.Errorf("got %s", in.Name)
	}
}

// An interface without an address is waited for until the pod has its own, and is
// then what it was named for.
func TestNamedWithoutAddress(t *testing.T) {
	t.Parallel()
	pod, _ := plug(t, "link add net1 type veth peer name peer1", "link set net1 up", "link set peer1 up")
	if _, err := readSoon(t, pod, "net1"); err == nil || !strings.Contains(err.Error(), "interface net1 has no address") {
		t.Errorf("before the CNI has done anything: %v", err)
	}
	pod.IP(t, "addr add 10.9.0.7/24 dev eth0", "route add default via 10.9.0.1")
	if _, ok := mustRead(t, pod, "net1")[0].IPv4(); ok {
		t.Error("net1 has an address")
	}
	// What comes while it is looked at counts.
	read := make(chan []discover.Interface, 1)
	go func() { read <- mustRead(t, pod, "net1") }()
	pod.IP(t, "addr add 10.10.0.7/24 dev net1")
	if ip, ok := (<-read)[0].IPv4(); !ok || ip.String() != "10.10.0.7/24" {
		t.Errorf("got %s", ip)
	}
}

// What the kernel makes of a router's advertisement is not the CNI's, in nothing.
func TestRouterAdvertised(t *testing.T) {
	t.Parallel()
	pod, node := plug(t)
	node.IP(t, "addr add fe80::1/64 dev peer nodad")
	advertise(t, pod, node)

	if _, err := readSoon(t, pod); err == nil || !strings.Contains(err.Error(), "from a router advertisement") {
		t.Errorf("eth0 with nothing of the CNI's: %v", err)
	}
	in := mustRead(t, pod, "eth0")[0] // named, it is a network without IPAM
	if _, ok := in.IPv6(); ok || in.Addressed() || len(in.PodRoutes()) > 0 && in.HasDefaultRoute(false) || in.Gateway6 != nil || len(in.Omitted) > 0 {
		t.Errorf("got %+v", in)
	}
	// A default route that was advertised makes no primary interface.
	pod.IP(t, "link add net1 type veth peer name peer1", "link set net1 up", "link set peer1 up",
		"addr add 10.9.0.7/24 dev net1", "route add default via 10.9.0.1")
	if in := mustRead(t, pod)[0]; in.Name != "net1" {
		t.Errorf("the default is %s", in.Name)
	}
	// Beside an address of the CNI's it is said.
	pod.IP(t, "addr add 10.8.0.7/24 dev eth0", "addr add fd00:8::7/64 dev eth0 nodad")
	in = mustRead(t, pod, "eth0")[0]
	if ip, _ := in.IPv6(); ip.String() != "fd00:8::7/64" {
		t.Errorf("IPv6 address %s", ip)
	}
	for _, what := range []string{"address 2001:db8:77:", "route 2001:db8:77::/64", "route default via fe80::1"} {
		if !slices.ContainsFunc(omitted(in), func(s string) bool {
			return strings.HasPrefix(s, what) && strings.Contains(s, "router advertisement")
		}) {
			t.Errorf("%s is not told of in %q", what, omitted(in))
		}
	}
	for _, r := range in.PodRoutes() {
		if r.Destination.Bits() == 0 || r.Destination == netip.MustParsePrefix("2001:db8:77::/64") {
			t.Errorf("a route of the router's: %+v", r)
		}
	}
}

// advertise has a router in the node tell the pod of a prefix, until the pod's
// kernel has made an address of it.
func advertise(t *testing.T, pod, node *podtest.NS) {
	t.Helper()
	frame := podtest.RouterFrame([]byte{2, 0, 0, 0, 0, 1}, netip.MustParseAddr("fe80::1"), netip.MustParsePrefix("2001:db8:77::/64"))
	if err := podtest.WaitSettled(t.Context(), pod); err != nil { // a host without an address of its own hears no router
		t.Fatal(err)
	}
	if err := podtest.SendFrames(node, "peer", frame); err != nil {
		t.Fatal(err)
	}
	if err := podtest.WaitRouter(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	if err := podtest.WaitSettled(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// The tables that a rule leads the pod's packets to count, others do not.
func TestTablesByRule(t *testing.T) {
	t.Parallel()
	pod, _ := plug(t, "addr add 10.9.0.7/24 dev eth0", "addr add fd00:9::7/64 dev eth0 nodad",
		"neigh add fd00:9::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
		"rule add from 10.9.0.7 lookup 100",
		"route add 10.9.0.0/24 dev eth0 table 100", "route add default via 10.9.0.1 table 100",
		"route add fd00:9::/64 dev eth0 table 101", "route add default via fd00:9::1 table 101",
		"route add 10.20.0.0/16 via 10.9.0.2 table 101", "route add 10.30.0.0/16 via 10.9.0.3 table 300",
		"rule add fwmark 7 lookup 300",
		"route add unreachable 10.66.0.0/16", "route add blackhole fd66::/32", "neigh add proxy 10.9.0.44 dev eth0",
		"route del 10.9.0.0/24 dev eth0", "route del fd00:9::/64 dev eth0")
	pod.Run(t, "ip", "-6", "rule", "add", "from", "fd00:9::7", "lookup", "101")
	in := mustRead(t, pod, "eth0")[0]
	if d := cmp.Diff([]int{100, 254}, in.Tables4); d != "" {
		t.Errorf("tables of IPv4:\n%s", d)
	}
	if d := cmp.Diff([]int{101, 254}, in.Tables6); d != "" {
		t.Errorf("tables of IPv6:\n%s", d)
	}
	var routes []string
	for _, r := range in.PodRoutes() {
		if !r.Destination.Addr().IsLinkLocalUnicast() {
			routes = append(routes, fmt.Sprint(r.Destination, r.Gateway))
		}
	}
	slices.Sort(routes)
	want := []string{"0.0.0.0/0 10.9.0.1", "10.9.0.0/24 invalid IP", "::/0 fd00:9::1", "fd00:9::/64 invalid IP"}
	if d := cmp.Diff(want, routes); d != "" {
		t.Errorf("routes (-want +got):\n%s", d)
	}
	if g := in.Gateway6; g == nil || g.Address.String() != "fd00:9::1" {
		t.Errorf("gateway %+v", g)
	}
	got := omitted(in)
	slices.Sort(got)
	want = []string{
		"proxied neighbor 10.9.0.44: the pod answers for it, a VM does not",
		"route 10.20.0.0/16 via 10.9.0.2 table 101: it is in table 101, which no rule selects for packets from the address of eth0",
		"route 10.30.0.0/16 via 10.9.0.3 table 300: it is in table 300, which no rule selects for packets from the address of eth0",
		"route blackhole fd66::/32 metric 1024: DHCP and router advertisements can't express a route of this type",
		"route unreachable 10.66.0.0/16: DHCP and router advertisements can't express a route of this type",
		"rule 32764 from all … lookup 300: DHCP and router advertisements can't express policy rules",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("omitted (-want +got):\n%s", d)
	}
}

// Which addresses the VM does not get is told, and why.
func TestOmittedAddresses(t *testing.T) {
	t.Parallel()
	pod, node := plug(t, "addr add 10.9.0.7/24 dev eth0", "addr add 10.9.0.8/24 dev eth0", "addr add 10.10.0.7/24 dev eth0",
		"addr add 169.254.9.9/16 dev eth0 scope link", "addr add fd00:9::7/64 dev eth0 nodad", "addr add fd00:9::8/64 dev eth0 nodad",
		"addr add fd00:9::9/64 dev eth0 nodad preferred_lft 0",
		"route add 10.40.0.0/16 nexthop via 10.9.0.1 nexthop via 10.9.0.2")
	node.IP(t, "addr add fd00:9::aa/64 dev peer nodad")
	pod.IP(t, "addr add fd00:9::aa/64 dev eth0")
	for !strings.Contains(pod.Run(t, "ip", "-6", "addr"), "dadfailed") {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	got := omitted(mustRead(t, pod)[0])
	slices.Sort(got)
	const one4, one6 = "DHCP gives the VM one IPv4 address, 10.9.0.7/24; the VM may add this one itself", "the VM gets one IPv6 address, fd00:9::7/64"
	want := []string{
		"address 10.10.0.7/24: " + one4, "address 10.9.0.8/24: " + one4,
		"address 169.254.9.9/16: its scope is link: other hosts can't use it",
		"address fd00:9::8/64: " + one6, "address fd00:9::9/64: it is deprecated",
		"address fd00:9::aa/64: it is a duplicate: another host on the link has it",
		"route 10.40.0.0/16 nexthops 2: the VM gets only its first next hop, 10.9.0.1",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("omitted (-want +got):\n%s", d)
	}
	// Alone, a duplicate is no address, and that is what is said.
	alone, node := plug(t)
	node.IP(t, "addr add fd00:9::aa/64 dev peer nodad")
	alone.IP(t, "addr add fd00:9::aa/64 dev eth0")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := readPod(ctx, t, alone, discover.Options{}); err == nil || !strings.Contains(err.Error(), "fd00:9::aa/64 is a duplicate") {
		t.Errorf("got %v", err)
	}
}

// A pod whose IPv6 is switched off has its IPv4, and each route once.
func TestIPv6SwitchedOff(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.KindnetDual)
	for _, of := range []string{"all", "default", "eth0"} {
		if err := pod.Sysctl("net/ipv6/conf/"+of+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	in := mustRead(t, pod.NS)[0]
	if _, ok := in.IPv6(); ok || in.Gateway6 != nil {
		t.Errorf("got IPv6: %+v", in)
	}
	if d := cmp.Diff(routesByIP(t, pod.NS), routesOf(in)); d != "" {
		t.Errorf("routes (-ip +ours):\n%s", d)
	}
}
