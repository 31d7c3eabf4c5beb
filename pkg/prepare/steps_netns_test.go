package prepare

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// failing is a change that the kernel refuses.
type failing struct{}

var errRefused = errors.New("refused")

func (failing) String() string          { return "fail" }
func (failing) Do(*engine.Kernel) error { return errRefused }
func (failing) Inverse() engine.Op      { return failing{} }

// bothDatapaths are those over which whole suites go.
var bothDatapaths = []string{DefaultDatapath, "redirect"}

// overBoth runs a test for each datapath.
func overBoth(t *testing.T, test func(t *testing.T, datapath string)) {
	for _, datapath := range bothDatapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			test(t, datapath)
		})
	}
}

// bench is a pod with plans for it.
type bench struct {
	t        *testing.T
	pod      *podtest.NS
	datapath string
	plans    []Plan
}

func newBench(t *testing.T, shape podtest.Shape, datapath string) *bench {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	return newBenchOf(t, pod.NS, datapath, pod.Interface)
}

func newBenchOf(t *testing.T, pod *podtest.NS, datapath string, names ...string) *bench {
	t.Helper()
	b := &bench{t: t, pod: pod, datapath: datapath}
	for _, name := range names {
		b.in(func() error {
			plan, err := planWith(name, Options{Datapath: datapath})
			b.plans = append(b.plans, plan)
			return err
		})
	}
	return b
}

// benches are a pod as a CNI makes it, and one with two prepared interfaces and a
// third one.
func benches(t *testing.T, test func(*testing.T, *bench)) {
	overBoth(t, func(t *testing.T, datapath string) {
		t.Run("one interface", func(t *testing.T) {
			t.Parallel()
			test(t, newBench(t, podtest.CalicoDual, datapath))
		})
		t.Run("two interfaces", func(t *testing.T) {
			t.Parallel()
			test(t, newBenchOf(t, threeNets(t,
				"route add default via 10.1.0.1 dev eth0", "route add default via fd00:2::1 dev net1",
				"route add 10.88.0.0/16 nexthop via 10.1.0.1 dev eth0 nexthop via 10.1.0.2 dev eth0",
				"addr add 10.5.0.7/24 dev eth0", "addr add 10.4.0.7/24 dev eth0", "addr add 10.4.0.8/24 dev eth0", "addr add 10.5.0.17/24 dev eth2",
				"route add local 10.66.0.0/24 dev eth0", "neigh add proxy 10.1.0.44 dev eth0"), datapath, "eth0", "net1"))
		})
	})
}

var (
	errNoLink = errors.New("no such link")
	discard   = slog.New(slog.DiscardHandler)
)

func planOf(name string) (Plan, error) { return planWith(name, Options{}) }

func planWith(name string, o Options) (Plan, error) {
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		return Plan{}, err
	}
	for _, in := range interfaces {
		if in.Name == name {
			return NewPlan(in, o)
		}
	}
	return Plan{}, errNoLink
}

func (b *bench) in(fn func() error) {
	b.t.Helper()
	if err := b.pod.Do(fn); err != nil {
		b.t.Fatal(err)
	}
}

// worth reports whether a failure at a change is worth its time: with several
// plans at those of routes, addresses and neighbours, which they have in common.
func (b *bench) worth(o engine.Op) bool {
	text := o.String()
	return len(b.plans) == 1 || strings.Contains(text, " route ") || strings.Contains(text, " addr ") || strings.Contains(text, " neigh ")
}

func (b *bench) snapshot() string { return podtest.TakeSnapshot(b.t, b.pod) }

// numbered is what a link that is made anew shows differently: its index, the
// digest of a rule that sends to it, and the name of whatever has, in this
// namespace, the index of a peer in another.
var numbered = regexp.MustCompile(`"(ifindex|link|comment)": .*`)

// unordered makes snapshots of a prepared pod comparable: links that were made
// anew come last in the kernel's lists.
func unordered(snapshot string) string {
	lines := strings.Split(numbered.ReplaceAllString(snapshot, ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// records are of the plans, in a namespace whose sysctls were on.
func (b *bench) records() (records []record) {
	on := map[string]string{}
	for _, name := range sysctlsOf(b.plans) {
		on[name] = "1"
	}
	for _, p := range b.plans {
		records = append(records, record{Plan: p, Sysctls: on})
	}
	return records
}

// ops returns what an apply or a restore would do now.
func (b *bench) ops(restore bool) (ops []engine.Op) {
	b.t.Helper()
	b.in(func() error {
		s, err := engine.ReadState(sysctlsOf(b.plans))
		if err != nil {
			return err
		}
		if restore {
			ops, _, err = restoreOps(s, b.records(), nil)
			return err
		}
		ops, err = applyOps(s, b.plans)
		return err
	})
	return ops
}

// execute does the ops in the pod and returns what came of it.
func (b *bench) execute(ops []engine.Op) (err error) {
	b.in(func() error {
		k, e := engine.Open(discard)
		if e != nil {
			return e
		}
		defer k.Close()
		err = k.Execute(context.Background(), ops)
		return nil
	})
	return err
}

func (b *bench) must(ops []engine.Op) {
	b.t.Helper()
	if err := b.execute(ops); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) same(what, want string) {
	b.t.Helper()
	if d := podtest.Diff(want, b.snapshot()); d != "" {
		b.t.Fatalf("%s:\n%s", what, d)
	}
}

// Whatever change of an apply or a restore fails, everything is as before.
func TestFailureAtEachChange(t *testing.T) {
	t.Parallel()
	benches(t, failAtEachChange)
}

func failAtEachChange(t *testing.T, b *bench) {
	for _, restore := range []bool{false, true} {
		before := b.snapshot()
		ops := b.ops(restore)
		if len(ops) < 3 {
			t.Fatalf("only %d changes", len(ops))
		}
		for i := range ops {
			if !b.worth(ops[max(0, i-1)]) {
				continue
			}
			err := b.execute(slices.Concat(ops[:i], []engine.Op{failing{}}))
			if !errors.Is(err, errRefused) || strings.Contains(err.Error(), "undo") {
				t.Fatalf("after %q: %v", engine.Headline(ops[max(0, i-1)]), err)
			}
			after := b.snapshot()
			if restore {
				before, after = unordered(before), unordered(after)
			}
			if d := podtest.Diff(before, after); d != "" {
				t.Fatalf("after undoing %s:\n%s", engine.Headline(ops[max(0, i-1)]), d)
			}
		}
		b.must(ops)
	}
}

// Wherever an apply was killed, another one completes it and a restore undoes
// it; wherever a restore was killed, another one completes it.
func TestKilledAfterEachChange(t *testing.T) {
	t.Parallel()
	benches(t, killAfterEachChange)
}

func killAfterEachChange(t *testing.T, b *bench) {
	original := b.snapshot()
	all := b.ops(false)
	b.must(all)
	prepared := b.snapshot()
	back := b.ops(true)
	b.must(back)
	b.same("after restore", original)

	for i := range all {
		if !b.worth(all[i]) {
			continue
		}
		at := "apply killed after " + engine.Headline(all[i])
		b.must(all[:i+1])
		b.must(b.ops(true))
		b.same(at+", then restored", original)
		b.must(all[:i+1])
		b.must(b.ops(false))
		if d := podtest.Diff(unordered(prepared), unordered(b.snapshot())); d != "" {
			t.Fatalf("%s, then applied:\n%s", at, d)
		}
		if again := b.ops(false); len(again) > 0 {
			t.Fatalf("%s: still to do: %s", at, engine.Sequence(again))
		}
		b.must(b.ops(true))
	}
	for i := range back {
		if !b.worth(back[i]) {
			continue
		}
		b.must(b.ops(false))
		b.must(back[:i+1])
		b.must(b.ops(true))
		b.same("restore killed after "+engine.Headline(back[i])+", then restored", original)
	}
}
