package prepare_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

func TestApplyAndRestore(t *testing.T) {
	t.Parallel()
	for datapath, wants := range map[string][]string{
		"bridge":   {"up-eth0", "tap-eth0", "master br-eth0", "learning off"},
		"redirect": {"tap-eth0", "NOARP"},
	} {
		for _, shape := range podtest.Shapes() {
			t.Run(datapath+" "+string(shape), func(t *testing.T) {
				t.Parallel()
				applyAndRestore(t, podtest.NewPod(t, shape), prepare.Options{Datapath: datapath}, wants)
			})
		}
	}
}

// applyAndRestore does both, each twice; wants are words of ip(8) about the links of a
// prepared pod.
func applyAndRestore(t *testing.T, pod *podtest.Pod, o prepare.Options, wants []string) {
	dir := t.TempDir()
	before := podtest.TakeSnapshot(t, pod.NS)
	pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, o, pod.Interface) })
	once := podtest.TakeSnapshot(t, pod.NS)
	if once == before {
		t.Fatal("apply changed nothing")
	}
	pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, o, pod.Interface) })
	if d := podtest.Diff(once, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("a second apply changed:\n%s", d)
	}
	links := pod.Run(t, "ip", "-d", "link")
	for _, want := range wants {
		if !strings.Contains(links, want) {
			t.Errorf("no %q in\n%s", want, links)
		}
	}
	for range 2 {
		pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after restore:\n%s", d)
		}
	}
}

// Someone who meddles with a prepared pod is put right by the next apply.
func TestApplyRepairs(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	dir := t.TempDir()
	again := func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, "eth0") }
	pod.In(t, again)
	want := podtest.TakeSnapshot(t, pod.NS)
	for _, meddle := range [][]string{
		{"nft", "delete table " + podtest.GuardTable},
		{"nft", "flush chain " + podtest.GuardTable + " from_guest"},
		{"nft", "delete table netdev virt-launcher-net-eth0"},
		{"nft", "flush chain netdev virt-launcher-net-eth0 to_guest"},
		{"ip", "link", "set", "up-eth0", "type", "bridge_slave", "learning", "on"},
		append(strings.Fields(podtest.SetPort), "up-eth0", "state", "0"),
		{"ip", "link", "set", "tap-eth0", "type", "bridge_slave", "neigh_suppress", "on"},
		{"ip", "link", "set", "tap-eth0", "down"},
		{"ip", "link", "set", "tap-eth0", "mtu", "1400"},
		{"ip", "link", "set", "br-eth0", "down"},
		{"ip", "link", "set", "up-eth0", "addrgenmode", "eui64"},
		{"ip", "link", "set", "up-eth0", "mtu", "1300"},
		{"sysctl", "-qw", podtest.SwitchFilter + "iptables=1"},
	} {
		pod.Run(t, meddle[0], meddle[1:]...)
		pod.In(t, again)
		if d := podtest.Diff(want, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after %s and apply:\n%s", strings.Join(meddle, " "), d)
		}
	}
}

// A pod that no CNI known to us makes, with one of everything.
func TestOddPod(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	pod.IP(t,
		"link add eth1 type veth peer name peer1 netns "+pod.Node.Path(), "link set eth1 up", "addr add 10.7.0.7/24 dev eth1",
		"addr add 10.9.0.7/24 brd + dev eth0",
		"addr add 10.9.0.8/24 dev eth0 label eth0:8",
		"addr add 10.8.0.7/30 dev eth0 valid_lft 9000 preferred_lft 8000",
		"addr add 10.6.0.1 peer 10.6.0.2/32 dev eth0",
		"addr add 10.6.1.1/24 dev eth0 preferred_lft 0",
		"addr add 10.5.0.7/24 dev eth0 noprefixroute metric 77",
		"addr add fd00:9::7/64 dev eth0 nodad",
		"link set eth0 alias uplink-of-the-pod txqueuelen 500",
		"link property add dev eth0 altname pod-uplink",
		"route add 172.16.0.0/12 via 10.9.0.1 metric 50 proto static src 10.9.0.7 mtu lock 1300 advmss 1200 initcwnd 20",
		"route append 172.16.0.0/12 via 10.9.0.2 metric 50 proto static",
		"route add 172.20.0.0/16 via 10.9.0.3 metric 60 tos 0x10",
		"route add 192.0.2.77 via 203.0.113.1 dev eth0 onlink",
		"route add default via 10.9.0.9 table 100",
		"route add 10.9.0.0/24 dev eth0 table 100 scope link",
		"route add 198.51.100.0/24 nexthop via 10.9.0.1 weight 1 nexthop via 10.9.0.2 weight 3",
		"route add blackhole 203.0.113.128/25",
		"route add fd00:99::/64 via fd00:9::1 dev eth0 metric 33",
		"route add fd00:98::/64 nexthop via fd00:9::1 dev eth0 weight 1 nexthop via fd00:9::2 dev eth0 weight 3",
		"rule add from 10.9.0.7 table 100 priority 1000",
		"neigh add 10.9.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
		"neigh add fd00:9::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent")
	pod.Run(t, "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", "100mbit", "burst", "64kb", "latency", "50ms")
	before := podtest.TakeSnapshot(t, pod.NS)
	dir := t.TempDir()
	pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, "eth0") })
	pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// refused applies and expects an error with each of the words, on one line, and
// a pod as before. It returns the error.
func refused(t *testing.T, pod *podtest.Pod, dir string, o prepare.Options, words ...string) (err error) {
	t.Helper()
	before := podtest.TakeSnapshot(t, pod.NS)
	pod.In(t, func() error {
		err = prepare.ApplyAll(t.Context(), dir, o, pod.Interface)
		if err == nil {
			err = errors.New("no error")
		}
		for _, word := range words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("no %q in: %v", word, err)
			}
		}
		return nil
	})
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("a refused apply changed:\n%s", d)
	}
	return err
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	t.Run("tap name taken", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pod.IP(t, "tuntap add dev tap-eth0 mode tap")
		refused(t, pod, t.TempDir(), prepare.Options{}, "tap-eth0", "is taken", "another tap name")
	})
	t.Run("link name of the loopback", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		for _, role := range []string{"tap", "bridge", "uplink"} {
			for _, datapath := range prepare.Datapaths() {
				err := refused(t, pod, t.TempDir(), prepare.Options{Datapath: datapath, Names: map[string]string{role: "lo"}}, role, "the loopback", "choose another name")
				if strings.Contains(err.Error(), "delete") {
					t.Error(err)
				}
			}
		}
	})
	t.Run("link name of an interface by the CNI", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pod.IP(t, "link add net1 type veth peer name net2")
		for role, name := range map[string]string{"tap": "net1", "bridge": "net1", "uplink": "net2"} {
			err := refused(t, pod, t.TempDir(), prepare.Options{Names: map[string]string{role: name}}, name, "is taken", "choose another "+role+" name")
			if strings.Contains(err.Error(), "delete") {
				t.Error(err)
			}
		}
	})
	t.Run("tap name taken as another name", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pod.IP(t, "link property add dev lo altname tap-eth0")
		refused(t, pod, t.TempDir(), prepare.Options{}, "tap-eth0", "alternative name of lo", "altname tap-eth0", "another tap name")
	})
	t.Run("a macvlan on it", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pod.IP(t, "link add mv0 link eth0 "+podtest.Macvlan)
		refused(t, pod, t.TempDir(), prepare.Options{}, "plan eth0", "the macvlan mv0 on it receives its frames")
	})
	t.Run("a route by a nexthop object", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.Flannel)
		pod.IP(t, "nexthop add id 7 via "+pod.Gateway.String()+" dev eth0", "route add 10.92.0.0/16 nhid 7")
		refused(t, pod, t.TempDir(), prepare.Options{}, "plan eth0", "it uses nexthop object 7", "ip route replace 10.92.0.0/16 via … dev eth0")
	})
	t.Run("the kernel refuses the port midway", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		// What is in another namespace is in nobody's list of links here.
		pod.IP(t, "link add mv0 link eth0 netns "+pod.Node.Path()+" "+podtest.Macvlan)
		dir := t.TempDir()
		refused(t, pod, dir, prepare.Options{}, "ip link set up-eth0 master br-eth0", "resource busy", "another network namespace")
		if left, _ := filepath.Glob(filepath.Join(dir, "*.json")); len(left) > 0 {
			t.Errorf("records are left: %v", left)
		}
	})
	t.Run("other options on a prepared pod", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		dir := t.TempDir()
		pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, pod.Interface) })
		refused(t, pod, dir, prepare.Options{Queues: 2, NoGuard: true}, "guard was true, is now false", "queues was 1, is now 2;", "restore first")
		refused(t, pod, dir, prepare.Options{TapOwner: &prepare.Owner{UID: 107, GID: -1}}, "tap owner was none, is now user 107")
	})
	t.Run("prepared, but the record is lost", func(t *testing.T) {
		t.Parallel()
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pod.In(t, func() error { return prepare.ApplyAll(t.Context(), t.TempDir(), prepare.Options{}, pod.Interface) })
		refused(t, pod, t.TempDir(), prepare.Options{}, "placeholder", "state directory")
	})
}

// A pod whose sandbox was made anew in place is not what its record says. Nobody
// can tell whether the older namespace still lives, so its record stays as it is.
func TestRecordOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var pods []*podtest.Pod
	var before []string
	for i := range 2 {
		pod := podtest.NewPod(t, podtest.CalicoDual)
		pods, before = append(pods, pod), append(before, podtest.TakeSnapshot(t, pod.NS))
		pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{Queues: 1 + i}, pod.Interface) })
	}
	for i, pod := range pods {
		pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
		if d := podtest.Diff(before[i], podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after restore of %d:\n%s", i, d)
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{"lock"}) {
		t.Errorf("left are %q", left)
	}
}

// A record of a namespace that is certainly no more is set aside when its place is
// needed, and nothing that was set aside before is overwritten.
func TestRecordOfNamespaceThatIsGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "eth0.json")
	pod := podtest.NewPod(t, podtest.CalicoDual)
	for i := range 3 {
		pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, pod.Interface) })
		record, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
		older := regexp.MustCompile(`"bootID": "[^"]+"`).ReplaceAll(record, fmt.Appendf(nil, `"bootID": "boot %d"`, i))
		if err := os.WriteFile(path, older, 0o600); err != nil {
			t.Fatal(err)
		}
		pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, older) {
			t.Errorf("restore touched another's record: %v", err)
		}
	}
	if left := names(t, dir); !slices.Equal(left, []string{"eth0.json", "eth0.json.stale", "eth0.json.stale.1", "lock"}) {
		t.Errorf("left are %q", left)
	}
	for i, name := range []string{"eth0.json.stale", "eth0.json.stale.1", "eth0.json"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.Contains(string(b), fmt.Sprintf("boot %d", i)) {
			t.Errorf("%s is not the record of boot %d: %v", name, i, err)
		}
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// A record that can't be used is set aside where the interface is as a CNI
// leaves it. Where it is prepared, nothing is touched: what it had is lost.
func TestUselessRecord(t *testing.T) {
	t.Parallel()
	for content, remedy := range map[string]string{
		"": "recreate the pod", "{": "recreate the pod", "null": "recreate the pod", `{"version":1}`: "recreate the pod", "\x00\xff": "recreate the pod",
		`{"version":99}`: "restore the pod with that version, or one that is newer still",
		`{"version":99,"writer":"v9.1.0","order":"first"}`: `by a newer virt-launcher-net, "v9.1.0"`,
	} {
		t.Run(content, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			before := podtest.TakeSnapshot(t, pod.NS)
			dir := t.TempDir()
			path := filepath.Join(dir, "eth0.json")
			write := func() {
				t.Helper()
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write()
			pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, pod.Interface) })
			if b, err := os.ReadFile(path + ".damaged"); err != nil || string(b) != content {
				t.Errorf("set aside: %q, %v", b, err)
			}
			record, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			write()
			refused(t, pod, dir, prepare.Options{}, path, remedy)
			pod.In(t, func() error {
				if err := prepare.RestoreAll(t.Context(), dir); err == nil || !strings.Contains(err.Error(), remedy) {
					t.Errorf("restore: %v", err)
				}
				return os.WriteFile(path, record, 0o600)
			})
			pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// Of two at once one waits; a wait can be given up.
func TestStoreIsHeldByOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	held, err := prepare.OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := prepare.OpenStore(ctx, dir); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second holder: %v", err)
	}
	held.Close()
	again, err := prepare.OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// A plan is text for a shell; this is what becomes of the tap.
func ExampleNewPlan() {
	in := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
	}
	plan, err := prepare.NewPlan(in, prepare.Options{NoGuard: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(plan.String()) {
		if strings.Contains(line, "tap-eth0") {
			fmt.Print(line)
		}
	}
	// Output:
	// ip tuntap add dev tap-eth0 mode tap vnet_hdr
	// ip link set tap-eth0 address 2e:b9:73:4a:31:40
	// ip link set tap-eth0 mtu 1450
	// ip link set tap-eth0 addrgenmode none
	// ip link set tap-eth0 master br-eth0
	// ip link set tap-eth0 type bridge_slave group_fwd_mask 65533
	// ip link set tap-eth0 type bridge_slave learning off
	// ip link set tap-eth0 up
}

// A nil log is silent, whatever there is to say.
func TestSilentStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "eth7.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := podtest.NewPod(t, podtest.Calico)
	pod.In(t, func() error {
		store, err := prepare.OpenStore(t.Context(), dir)
		if err != nil {
			return err
		}
		defer store.Close()
		if _, err := store.Plans(nil); err != nil {
			return err
		}
		_, err = prepare.ReadPlans(nil, dir)
		return err
	})
}
