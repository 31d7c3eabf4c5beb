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
)

// failing is a change that the kernel refuses.
type failing struct{}

var errRefused = errors.New("refused")

func (failing) String() string   { return "fail" }
func (failing) do(*kernel) error { return errRefused }
func (failing) inverse() op      { return failing{} }

// bench is a pod with a plan for it.
type bench struct {
	t    *testing.T
	pod  *podtest.Pod
	plan Plan
	dir  string
}

func newBench(t *testing.T, shape podtest.Shape) *bench {
	t.Helper()
	b := &bench{t: t, pod: podtest.NewPod(t, shape), dir: t.TempDir()}
	b.in(func() (err error) {
		b.plan, err = planOf(b.pod.Interface)
		return err
	})
	return b
}

var (
	errNoLink = errors.New("no such link")
	discard   = slog.New(slog.DiscardHandler)
)

func planOf(name string) (Plan, error) {
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		return Plan{}, err
	}
	for _, in := range interfaces {
		if in.Name == name {
			return NewPlan(in, Options{})
		}
	}
	return Plan{}, errNoLink
}

func (b *bench) in(fn func() error) {
	b.t.Helper()
	if err := b.pod.Pod.Do(fn); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) snapshot() string { return podtest.TakeSnapshot(b.t, b.pod.Pod) }

// numbered is what a link that is made anew shows differently: its index, and
// the name of whatever has, in this namespace, the index of a peer in another.
var numbered = regexp.MustCompile(`"(ifindex|link)": .*`)

// unordered makes snapshots of a prepared pod comparable: links that were made
// anew come last in the kernel's lists.
func unordered(snapshot string) string {
	lines := strings.Split(numbered.ReplaceAllString(snapshot, ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// ops returns what an apply or a restore would do now.
func (b *bench) ops(restore bool) (ops []op) {
	b.t.Helper()
	b.in(func() error {
		s, err := readState()
		if err != nil {
			return err
		}
		if restore {
			ops = append(b.plan.restoreOps(s), knobRestoreOps(s, map[string]string{knobNames[0]: "1", knobNames[1]: "1", knobNames[2]: "1"})...)
			return nil
		}
		more, err := b.plan.applyOps(s)
		ops = append(knobOps(s), more...)
		return err
	})
	return ops
}

// execute does the ops in the pod and returns what came of it.
func (b *bench) execute(ops []op) (err error) {
	b.in(func() error {
		k, e := newKernel(discard)
		if e != nil {
			return e
		}
		defer k.conn.Close()
		err = k.execute(context.Background(), ops)
		return nil
	})
	return err
}

func (b *bench) must(ops []op) {
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
	b := newBench(t, podtest.CalicoDual)
	for _, restore := range []bool{false, true} {
		before := b.snapshot()
		ops := b.ops(restore)
		if len(ops) < 8 {
			t.Fatalf("only %d changes", len(ops))
		}
		for i := range ops {
			err := b.execute(slices.Concat(ops[:i], []op{failing{}}))
			if !errors.Is(err, errRefused) || strings.Contains(err.Error(), "undo") {
				t.Fatalf("after %q: %v", headline(ops[max(0, i-1)]), err)
			}
			after := b.snapshot()
			if restore {
				before, after = unordered(before), unordered(after)
			}
			if d := podtest.Diff(before, after); d != "" {
				t.Fatalf("after undoing %s:\n%s", headline(ops[max(0, i-1)]), d)
			}
		}
		b.must(ops)
	}
}

// Wherever an apply was killed, another one completes it and a restore undoes
// it; wherever a restore was killed, another one completes it.
func TestKilledAfterEachChange(t *testing.T) {
	t.Parallel()
	b := newBench(t, podtest.CalicoDual)
	original := b.snapshot()
	all := b.ops(false)
	b.must(all)
	prepared := b.snapshot()
	back := b.ops(true)
	b.must(back)
	b.same("after restore", original)

	for i := range all {
		at := "apply killed after " + headline(all[i])
		b.must(all[:i+1])
		b.must(b.ops(true))
		b.same(at+", then restored", original)
		b.must(all[:i+1])
		b.must(b.ops(false))
		if d := podtest.Diff(unordered(prepared), unordered(b.snapshot())); d != "" {
			t.Fatalf("%s, then applied:\n%s", at, d)
		}
		if again := b.ops(false); len(again) > 0 {
			t.Fatalf("%s: still to do: %s", at, sequence(again))
		}
		b.must(b.ops(true))
	}
	for i := range back {
		b.must(b.ops(false))
		b.must(back[:i+1])
		b.must(b.ops(true))
		b.same("restore killed after "+headline(back[i])+", then restored", original)
	}
}
