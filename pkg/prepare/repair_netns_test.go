package prepare

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// interrupted is a context that lets some changes be done, and then ends, or kills
// whoever asks: what is executing changes asks before each.
type interrupted struct {
	context.Context
	left int
	kill bool
}

type killed struct{}

func (c *interrupted) Err() error {
	if c.left--; c.left >= 0 {
		return nil
	}
	if c.kill {
		panic(killed{})
	}
	return errRefused
}

// ward is a prepared pod with a guest on the tap.
type ward struct {
	*bench
	dir   string
	guest *podtest.Guest
}

// apply is Apply in the pod, killed or failing after some changes; -1: neither.
func (w *ward) apply(changes int, kill bool, names ...string) (err error) {
	w.t.Helper()
	ctx := context.Background()
	if changes >= 0 {
		ctx = &interrupted{ctx, changes, kill}
	}
	defer func() {
		if r := recover(); r != nil && r != any(killed{}) {
			panic(r)
		}
	}()
	w.in(func() error {
		err = ApplyAll(ctx, w.dir, Options{Datapath: w.datapath}, names...)
		return nil
	})
	return err
}

// todo is what an apply would do now, in words, but for the tables.
func (w *ward) todo() (words []string) {
	w.t.Helper()
	for _, o := range w.ops(false) {
		if _, isTable := o.(engine.AddTables); !isTable {
			words = append(words, o.String())
		}
	}
	return words
}

// settled is todo once the kernel has done what follows by itself: a bridge disables ports
// that have lost their carrier.
func (w *ward) settled() []string {
	w.t.Helper()
	if err := podtest.WaitSettled(w.t.Context(), w.pod); err != nil {
		w.t.Fatal(err)
	}
	return w.todo()
}

// works reports whether the guest reaches the outside.
func (w *ward) works() bool {
	_, err := w.guest.Output(w.t.Context(), "ping", "-c1", "-W1", podtest.OutsideIP.String())
	return err == nil
}

// stillWorks is works, for where a busy machine is no excuse.
func (w *ward) stillWorks() bool {
	for range 3 {
		if w.works() {
			return true
		}
	}
	return false
}

// guarded tells whether there is a guard, and how it is not whole.
func (w *ward) guarded() (there bool, why error) {
	w.t.Helper()
	why = w.plans[0].inPod(w.pod, tableErrors)
	table := strings.Fields(guardTables[w.datapath])
	_, err := w.pod.Output(w.t.Context(), "nft", "list", "table", table[0], table[1])
	return err == nil, why
}

func (p Plan) inPod(pod *podtest.NS, fn func(Plan) error) (err error) {
	return errors.Join(pod.Do(func() error {
		err = fn(p)
		return nil
	}), err)
}

// recorded are the records of the pod.
func (w *ward) recorded() (records []record) {
	w.t.Helper()
	w.in(func() error {
		store, err := OpenStore(w.t.Context(), w.dir)
		if err != nil {
			return err
		}
		defer store.Close()
		records, err = store.load(discard, nil)
		return err
	})
	return records
}

// guardTables are the tables with the port guard, by datapath.
var guardTables = map[string]string{DefaultDatapath: podtest.GuardTable, "redirect": "netdev virt-launcher-net-eth0"}

// damages are what somebody may do to a prepared pod, in the words of a shell, by
// datapath.
var damages = map[string]map[string][]string{DefaultDatapath: {
	"switch deleted":             {"ip link del br-eth0"},
	"switch down":                {"ip link set br-eth0 down"},
	"switch with another MTU":    {"ip link set br-eth0 mtu 1300"},
	"switch with another MAC":    {"ip link set br-eth0 address 02:00:00:00:00:01"},
	"uplink down":                {"ip link set up-eth0 down"},
	"uplink out of the switch":   {"ip link set up-eth0 nomaster"},
	"uplink that learns":         {podtest.SetPort + " up-eth0 learning on"},
	"uplink with another MTU":    {"ip link set up-eth0 mtu 1300"},
	"uplink with another MAC":    {"ip link set up-eth0 address 02:00:00:00:00:02"},
	"uplink with an address":     {"ip addr add 10.99.0.1/24 dev up-eth0", "ip route add 10.98.0.0/16 via 10.99.0.9"},
	"uplink with another name":   {"ip link set up-eth0 down", "ip link set up-eth0 name other", "ip link set other up"},
	"tap deleted":                {"ip link del tap-eth0"},
	"tap down":                   {"ip link set tap-eth0 down"},
	"tap out of the switch":      {"ip link set tap-eth0 nomaster"},
	"tap with another MTU":       {"ip link set tap-eth0 mtu 1300"},
	"tap with another MAC":       {"ip link set tap-eth0 address 02:00:00:00:00:03"},
	"placeholder deleted":        {"ip link del eth0"},
	"placeholder down":           {"ip link set eth0 down"},
	"placeholder of another MTU": {"ip link set eth0 mtu 1300"},
	"placeholder of another MAC": {"ip link set eth0 address 02:00:00:00:00:04"},
	"no address":                 {"ip addr flush dev eth0"},
	"guard deleted":              {"nft delete table " + podtest.GuardTable},
	"guard flushed":              {"nft flush table " + podtest.GuardTable},
	"guard with a rule more":     {"nft insert rule " + podtest.GuardTable + " to_guest accept"},
	"guard and placeholder": {
		"nft delete chain " + podtest.GuardTable + " input", "ip link del eth0", "ip link set tap-eth0 mtu 1300",
	},
	"nearly everything": {
		"nft flush chain " + podtest.GuardTable + " from_guest", "ip link del eth0", "ip link set tap-eth0 mtu 1300",
		"ip link set up-eth0 address 02:00:00:00:00:02", podtest.SetPort + " up-eth0 learning on",
		"ip link set br-eth0 address 02:00:00:00:00:01",
	},
}, "redirect": {
	"tap deleted":            {"ip link del tap-eth0"},
	"tap down":               {"ip link set tap-eth0 down"},
	"tap with another MTU":   {"ip link set tap-eth0 mtu 1300"},
	"tap with another MAC":   {"ip link set tap-eth0 address 02:00:00:00:00:03"},
	"tap that does ARP":      {"ip link set tap-eth0 arp on"},
	"no aliases":             {"ip addr flush dev tap-eth0"},
	"no neighbor":            {"ip neigh flush dev tap-eth0 nud permanent"},
	"a neighbor's MAC":       {"ip neigh replace ALIAS lladdr 02:00:00:00:00:09 dev tap-eth0 nud permanent"},
	"table deleted":          {"nft delete table netdev virt-launcher-net-eth0"},
	"table flushed":          {"nft flush table netdev virt-launcher-net-eth0"},
	"table with a rule more": {"nft insert rule netdev virt-launcher-net-eth0 to_guest accept"},
	"no egress chain":        {"nft flush table netdev virt-launcher-net-eth0", "nft delete chain netdev virt-launcher-net-eth0 from_pod"},
	"a set deleted":          {"nft flush table netdev virt-launcher-net-eth0", "nft delete set netdev virt-launcher-net-eth0 pod_flows_ip"},
	"a set more":             {"nft add set netdev virt-launcher-net-eth0 more { type inet_service; }"},
	"nearly everything": {
		"nft flush chain netdev virt-launcher-net-eth0 from_guest", "ip link set tap-eth0 mtu 1300", "ip link set tap-eth0 arp on",
		"ip link set tap-eth0 address 02:00:00:00:00:03", "ip addr flush dev tap-eth0",
	},
}}

// A repair that fails or is killed, wherever that is, takes nothing from the VM
// that worked before, and leaves the next one all that it needs.
func TestRepairHarmsNobody(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		for name, lines := range damages[datapath] {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				repair(t, datapath, func(w *ward) {
					for _, line := range lines {
						if aliases := w.plans[0].NIC().Aliases; len(aliases) > 0 {
							line = strings.ReplaceAll(line, "ALIAS", aliases[0].VM.String())
						}
						words := strings.Fields(line)
						// An error: it is damaged so already.
						_, _ = w.pod.Output(t.Context(), words[0], words[1:]...)
					}
				})
			})
		}
	})
}

func repair(t *testing.T, datapath string, damage func(w *ward)) {
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	w := &ward{bench: newBenchOf(t, pod.NS, datapath, "eth0"), dir: t.TempDir()}
	original := w.snapshot()
	if err := w.apply(-1, false, "eth0"); err != nil {
		t.Fatal(err)
	}
	sit := func() {
		t.Helper()
		w.guest = podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
		w.guest.IP(t, "addr add "+pod.IPv4.String()+" dev eth0", "route add default via "+pod.Gateway.String())
		if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
			t.Fatal(err)
		}
		if !w.stillWorks() {
			t.Fatal("a guest in a prepared pod reaches nobody")
		}
	}
	sit()
	prepared := unordered(w.snapshot())
	damage(w)
	todo, ops := w.todo(), len(w.ops(false))
	if ops == 0 {
		t.Fatal("there is nothing to repair")
	}
	for _, kill := range []bool{false, true} {
		for i := range ops {
			at := "a repair that fails before change " + strings.Split(w.ops(false)[i].String(), "\n")[0]
			if kill {
				at = strings.Replace(at, "fails", "is killed", 1)
			}
			worked := w.works()
			guarded, damaged := w.guarded()
			err := w.apply(i, kill, "eth0")
			if !kill && (!errors.Is(err, errRefused) || strings.Contains(err.Error(), "undo")) {
				t.Fatalf("%s: %v", at, err)
			}
			if worked && !w.stillWorks() {
				t.Errorf("%s cuts off the VM", at)
			}
			if there, why := w.guarded(); damaged == nil && why != nil || guarded && !there {
				t.Errorf("%s: the guard is there: %v; %v", at, there, why)
			}
			if now := w.todo(); !kill && !slices.Equal(now, todo) {
				t.Errorf("%s: there is to do\n%s\nand was\n%s", at, strings.Join(now, "\n"), strings.Join(todo, "\n"))
			}
			if r := w.recorded(); len(r) != 1 || !r[0].isApplied() {
				t.Fatalf("%s: records are %+v", at, r)
			}
			if !kill && i < ops-1 { // nothing was changed but the guard, at most
				damage(w)
				continue
			}
			if err := w.apply(-1, false, "eth0"); err != nil {
				t.Fatalf("%s: the next: %v", at, err)
			}
			if left := w.ops(false); len(left) > 0 {
				t.Fatalf("%s: the next leaves to do: %s", at, engine.Sequence(left))
			}
			if !w.stillWorks() { // the tap was another one
				sit()
			}
			if d := podtest.Diff(prepared, unordered(w.snapshot())); d != "" {
				t.Errorf("%s, then repaired:\n%s", at, d)
			}
			damage(w)
			if now := len(w.ops(false)); now != ops {
				t.Fatalf("%s: damaged again there are %d changes to do, not %d: %s", at, now, ops, engine.Sequence(w.ops(false)))
			}
		}
	}
	if err := w.apply(-1, false, "eth0"); err != nil {
		t.Fatal(err)
	}
	w.in(func() error { return RestoreAll(context.Background(), w.dir) })
	if d := podtest.Diff(original, w.snapshot()); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// An apply that fails, wherever that is, leaves nothing: not of itself, nor of one
// that was killed before.
func TestApplyLeavesNothing(t *testing.T) {
	t.Parallel()
	overBoth(t, applyLeavesNothing)
}

func applyLeavesNothing(t *testing.T, datapath string) {
	w := &ward{bench: newBench(t, podtest.CalicoDual, datapath), dir: t.TempDir()}
	original, ops := w.snapshot(), w.ops(false)
	nothing := func(at string, err error) {
		t.Helper()
		if !errors.Is(err, errRefused) || strings.Contains(err.Error(), "undo") {
			t.Fatalf("%s: %v", at, err)
		}
		w.same(at, original)
		if r := w.recorded(); len(r) > 0 {
			t.Errorf("%s: records are %+v", at, r)
		}
	}
	for i, o := range ops {
		at := "fails before " + engine.Headline(o)
		nothing(at, w.apply(i, false, "eth0"))
		if err := w.apply(i, true, "eth0"); err != nil {
			t.Fatalf("killed before %s: %v", engine.Headline(o), err)
		}
		if r := w.recorded(); len(r) != 1 || r[0].isApplied() {
			t.Errorf("killed before %s: records are %+v", engine.Headline(o), r)
		}
		nothing("killed before "+engine.Headline(o)+", then fails", w.apply(0, false, "eth0"))
	}
}

// Of two interfaces one is prepared and damaged, the other new: that which was
// whole keeps what it had, the other is as it was.
func TestApplyToOneMore(t *testing.T) {
	t.Parallel()
	w := &ward{bench: newBenchOf(t, threeNets(t,
		"route add default via 10.1.0.1 dev eth0", "route add 10.77.0.0/16 via 10.2.0.1 dev net1"), DefaultDatapath, "eth0"), dir: t.TempDir()}
	original := w.snapshot()
	if err := w.apply(-1, false, "eth0"); err != nil {
		t.Fatal(err)
	}
	w.pod.IP(t, "link set tap-eth0 mtu 1300", "link del eth0")
	before, todo := unordered(w.snapshot()), w.todo()
	done := false
	for i := 0; !done; i++ {
		err := w.apply(i, false, "eth0", "net1")
		if done = err == nil; done {
			if i < 8 {
				t.Errorf("an apply to one more failed %d times only", i)
			}
			break
		}
		if d := podtest.Diff(before, unordered(w.snapshot())); d != "" {
			t.Fatalf("%v:\n%s", err, d)
		}
		if now := w.todo(); !slices.Equal(now, todo) {
			t.Fatalf("%v: there is to do\n%s", err, strings.Join(now, "\n"))
		}
		if r := w.recorded(); len(r) != 1 || !r[0].isApplied() {
			t.Fatalf("%v: records are %+v", err, r)
		}
	}
	if r := w.recorded(); len(r) != 2 || !r[0].isApplied() || !r[1].isApplied() || r[0].Plan.Interface.Name != "eth0" {
		t.Errorf("records are %+v", r)
	}
	w.in(func() error { return RestoreAll(context.Background(), w.dir) })
	w.same("after restore", original)
}

// A record of a program that did not mark it: a VM on the tap, or the placeholder,
// tells that it was applied.
func TestRecordsWithoutTheMark(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage  []string
		hasVM   bool
		isWhole bool
	}{
		"whole":                       {[]string{"link set br-eth0 down"}, false, true},
		"a VM on the tap":             {[]string{"link del eth0"}, true, true},
		"no VM, and no placeholder":   {[]string{"link del eth0"}, false, false},
		"a VM, and nothing but a tap": {[]string{"link del eth0", "link del br-eth0"}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &ward{bench: newBench(t, podtest.BridgeCNI, DefaultDatapath), dir: t.TempDir()}
			original := w.snapshot()
			if err := w.apply(-1, false, "eth0"); err != nil {
				t.Fatal(err)
			}
			w.in(func() error {
				store, err := OpenStore(t.Context(), w.dir)
				if err != nil {
					return err
				}
				defer store.Close()
				records, err := store.load(discard, nil)
				if err != nil {
					return err
				}
				records[0].Applied = nil
				return store.save(records[0])
			})
			if c.hasVM {
				podtest.NewNIC(t, w.pod, "tap-eth0")
			}
			w.pod.IP(t, c.damage...)
			todo := w.settled()
			if err := w.apply(1, false, "eth0"); !errors.Is(err, errRefused) && len(w.ops(false)) > 1 {
				t.Fatal(err)
			}
			there, _ := w.guarded()
			if there != c.isWhole {
				t.Errorf("the guard is there: %v", there)
			}
			if now := w.settled(); c.isWhole && len(todo) > 1 && !slices.Equal(now, todo) {
				t.Errorf("there is to do\n%s\nand was\n%s", strings.Join(now, "\n"), strings.Join(todo, "\n"))
			}
			if !c.isWhole {
				w.same("after a repair of what was half done has failed", original)
				return
			}
			if err := w.apply(-1, false, "eth0"); err != nil {
				t.Fatal(err)
			}
			if r := w.recorded(); len(r) != 1 || !r[0].isApplied() {
				t.Errorf("records are %+v", r)
			}
		})
	}
}

// tableErrors says how the plan's nftables tables differ from what is there; nil: they
// are whole.
func tableErrors(p Plan) error {
	differences, err := Differences(p)
	errs := []error{err}
	for _, d := range differences {
		if strings.HasPrefix(d.Is, "changed (") {
			errs = append(errs, errors.New(d.String()))
		}
	}
	return errors.Join(errs...)
}
