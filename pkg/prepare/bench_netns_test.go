package prepare

import (
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// BenchmarkApply compares, in one run, a whole apply (read the kernel, compute
// what is to do, write the record to disk, do it) with its changes alone, and
// with the reading alone.
func BenchmarkApply(b *testing.B) {
	pod := podtest.NewPod(b, podtest.Flannel)
	if err := podtest.WaitSettled(b.Context(), pod.NS); err != nil {
		b.Fatal(err)
	}
	// A benchmark runs on a goroutine, so on a thread, of its own.
	run := func(name string, fn func(*testing.B, Plan) error) {
		b.Run(name, func(b *testing.B) {
			if err := pod.Do(func() error {
				plan, err := planOf(pod.Interface)
				if err != nil {
					return err
				}
				return fn(b, plan)
			}); err != nil {
				b.Fatal(err)
			}
		})
	}
	run("whole", benchmarkWhole)
	run("changes", benchmarkChanges)
	run("read", func(b *testing.B, plan Plan) error {
		for b.Loop() {
			if _, err := engine.ReadState(sysctlsOf([]Plan{plan})); err != nil {
				return err
			}
		}
		return nil
	})
}

func benchmarkWhole(b *testing.B, plan Plan) error {
	store, err := OpenStore(b.Context(), b.TempDir())
	if err != nil {
		return err
	}
	defer store.Close()
	for b.Loop() {
		if _, _, err := Apply(b.Context(), nil, store, plan); err != nil {
			return err
		}
		b.StopTimer()
		if err := Restore(b.Context(), nil, store); err != nil {
			return err
		}
		b.StartTimer()
	}
	return nil
}

func benchmarkChanges(b *testing.B, plan Plan) error {
	k, err := engine.Open(discard)
	if err != nil {
		return err
	}
	defer k.Close()
	s, err := engine.ReadState(sysctlsOf([]Plan{plan}))
	if err != nil {
		return err
	}
	ops, err := applyOps(s, []Plan{plan})
	if err != nil {
		return err
	}
	for b.Loop() {
		if err := k.Execute(b.Context(), ops); err != nil {
			return err
		}
		b.StopTimer()
		if s, err = engine.ReadState(sysctlsOf([]Plan{plan})); err != nil {
			return err
		}
		back, _, err := restoreOps(s, []record{{Plan: plan}}, nil)
		if err != nil {
			return err
		}
		if err := k.Execute(b.Context(), back); err != nil {
			return err
		}
		b.StartTimer()
	}
	return nil
}
