package prepare

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// threeNets is a pod with three interfaces, of which eth0 and net1 are for VMs.
func threeNets(t *testing.T, more ...string) *podtest.NS {
	t.Helper()
	pod, node := podtest.New(t), podtest.New(t)
	if err := pod.Sysctl("net/ipv6/conf/default/accept_dad", "0"); err != nil { // nobody else is there
		t.Fatal(err)
	}
	pod.IP(t, "link set lo up")
	for _, link := range []string{"eth0 10.1.0.7/24 fd00:1::7/64", "net1 10.2.0.17/24 fd00:2::17/64", "eth2 10.3.0.7/24 fd00:3::7/64"} {
		words := strings.Fields(link)
		pod.IP(t, "link add "+words[0]+" type veth peer name "+words[0]+" netns "+node.Path(), "link set "+words[0]+" up",
			"addr add "+words[1]+" dev "+words[0], "addr add "+words[2]+" nodad dev "+words[0])
		node.IP(t, "link set "+words[0]+" up")
	}
	pod.IP(t, more...)
	return pod
}

// What a pod's routes lean on comes back whatever of it was prepared, together
// or one after the other.
func TestRoutesComeBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		setup    []string
		together bool // for what comes back only if both were prepared together
	}{
		{"a lifetime", []string{"route add fd00:99::/64 via fd00:1::1 dev eth0 proto ra expires 1800"}, false},
		{"in front of an equal one", []string{
			"addr add 10.5.0.7/24 dev eth0", "addr add 10.5.0.17/24 dev net1", "addr add 10.6.0.17/24 dev net1", "addr add 10.6.0.7/24 dev eth0",
			"route append 10.80.0.0/16 via 10.1.0.1 dev eth0", "route append 10.80.0.0/16 via 10.2.0.1 dev net1",
			"route append 10.81.0.0/16 via 10.2.0.1 dev net1", "route append 10.81.0.0/16 via 10.1.0.1 dev eth0",
		}, true},
		{"in the table local, and proxied neighbours", []string{
			"route add local 10.66.0.0/24 dev eth0", "route add broadcast 10.67.0.255 dev eth0", "route add local fd00:66::/64 dev eth0",
			"route add 10.68.0.0/24 dev eth0 src 10.66.0.5",
			"neigh add proxy 10.1.0.44 dev eth0", "neigh add proxy fd00:1::44 dev eth0",
		}, false},
		{"without what the kernel makes of addresses", []string{
			"addr add 10.6.0.1 peer 10.6.0.2/32 dev eth0", "route del 10.6.0.2 dev eth0",
			"addr add 10.6.1.1 peer 10.7.0.2/24 dev eth0", "route del 10.7.0.0/24 dev eth0",
			"addr add fd00:6::7/128 nodad dev eth0", "route del fd00:6::7/128 dev eth0",
		}, false},
		{"an IPv6 gateway of IPv4, a type of service, a source", []string{
			"route add 10.90.0.0/16 via inet6 fd00:1::1 dev eth0", "route add 10.91.0.0/16 tos 0x10 via 10.1.0.1 dev eth0", "route add 10.91.0.0/16 via 10.1.0.2 dev eth0",
			"route add fd00:91::/64 from fd00:1::/64 via fd00:1::1 dev eth0",
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod, dir := threeNets(t, c.setup...), t.TempDir()
			before := podtest.TakeSnapshot(t, pod)

			same := func(what string) {
				t.Helper()
				if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod)); d != "" {
					t.Errorf("%s:\n%s", what, d)
				}
			}
			pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0", "net1") })
			both := podtest.TakeSnapshot(t, pod)
			pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0", "net1") })
			if d := podtest.Diff(both, podtest.TakeSnapshot(t, pod)); d != "" {
				t.Errorf("a second apply changed:\n%s", d)
			}
			pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
			same("both together")
			for _, order := range [][]string{{"eth0", "net1"}, {"net1", "eth0"}} {
				pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0", "net1") })
				pod.In(t, func() error { return RestoreAll(t.Context(), dir, order[0]) })
				pod.In(t, func() error { return RestoreAll(t.Context(), dir, order[1]) })
				same("restored one by one, " + order[0] + " first")
				if c.together { // which comes first is known if both are seen
					continue
				}
				pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, order[0]) })
				pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, order[1]) })
				pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
				same("prepared one by one, " + order[0] + " first")
			}
			pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0") })
			pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
			same("eth0 alone")
		})
	}
}

// A route with an IPv6 address as its source, as the CNI plugin ptp makes them, comes back
// although the kernel asks who else has an address that is added.
func TestSourceComesBack(t *testing.T) {
	t.Parallel()
	pod, dir := podtest.NewPod(t, podtest.BridgeDual), t.TempDir()
	pod.IP(t, "addr add fd00:10:22::8/64 dev eth0")
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "route add fd00:77::/64 via fd00:10:22::1 src fd00:10:22::8 dev eth0")
	before := podtest.TakeSnapshot(t, pod.NS)
	pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0") })
	pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
	if out := pod.Run(t, "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"); strings.Contains(out, "tentative") || strings.Count(out, "nodad") != 1 {
		t.Errorf("it is not as it was:\n%s", out)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// An MTU that somebody changed meanwhile does not outlast the restore.
func TestRestoreSetsMTU(t *testing.T) {
	t.Parallel()
	pod, dir := threeNets(t), t.TempDir()
	before := podtest.TakeSnapshot(t, pod)
	pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{}, "eth0") })
	pod.IP(t, "link set up-eth0 mtu 1300")
	pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// A route that hangs on more than the interface is refused with the way out, and
// nothing is changed.
func TestSharedRoutesAreRefused(t *testing.T) {
	t.Parallel()
	for route, why := range map[string]string{
		"route add default nexthop via 10.1.0.1 dev eth0 nexthop via 10.2.0.1 dev net1":     "it uses other links, too",
		"route add default nexthop via fd00:2::1 dev net1 nexthop via fd00:1::1 dev eth0":   "it uses other links, too",
		"route add 10.61.0.0/16 via 10.3.0.1 dev eth2 src 10.1.0.7":                         "has its address 10.1.0.7 as source",
		"route add blackhole 10.70.0.0/16 src 10.1.0.7":                                     "has its address 10.1.0.7 as source",
		"route add fd00:61::/64 dev eth2 src fd00:1::7":                                     "has its address fd00:1::7 as source",
		"nexthop add id 7 via 10.1.0.1 dev eth0;route add 10.92.0.0/16 nhid 7":              "it uses nexthop object 7",
		"nexthop add id 7 via 10.3.0.1 dev eth2;route add 10.92.0.0/16 nhid 7 src 10.1.0.7": "has its address 10.1.0.7 as source",
	} {
		t.Run(route, func(t *testing.T) {
			t.Parallel()
			pod := threeNets(t, strings.Split(route, ";")...)
			before := podtest.TakeSnapshot(t, pod)
			pod.In(t, func() error {
				expectWords(t, ApplyAll(t.Context(), t.TempDir(), Options{}, "eth0"), []string{why, "delete it (ip route del"})
				return nil
			})
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod)); d != "" {
				t.Errorf("a refused prepare changed:\n%s", d)
			}
		})
	}
}

// A permanent neighbor that a CNI has given another MAC in the meantime keeps that: all else
// is as the CNI left it, and the next VM is told the new one.
func TestNewMACOfNeighborStays(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		pod, dir := podtest.NewPod(t, podtest.AWS), t.TempDir()
		const set, other = "neigh replace 169.254.1.1 dev eth0 nud permanent lladdr ", "02:00:00:00:00:99"
		before := podtest.TakeSnapshot(t, pod.NS)
		was := strings.Fields(pod.Run(t, "ip", "neigh", "show", "169.254.1.1"))[4]
		pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{Datapath: datapath}, "eth0") })
		pod.IP(t, set+other)
		pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
		if now := pod.Run(t, "ip", "neigh", "show", "169.254.1.1"); !strings.Contains(now, other) {
			t.Errorf("restored, it is %q, not of MAC %s", now, other)
		}
		pod.IP(t, set+was)
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("restored:\n%s", d)
		}
	})
}
