package prepare

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A pod whose prepare or restore was killed gets no tables by a repair, and a state
// directory that is removed stays so.
func TestRepairTablesOfPart(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		w := &ward{bench: newBench(t, podtest.Calico, datapath), dir: t.TempDir()}
		repair := func(at string) (err error) {
			t.Helper()
			before := w.snapshot()
			w.in(func() error {
				var repaired bool
				if repaired, err = RepairTables(t.Context(), nil, w.dir, "eth0"); repaired {
					t.Errorf("%s it is repaired", at)
				}
				return nil
			})
			w.same(at, before)
			return err
		}
		ops := len(w.ops(false))
		for _, i := range []int{1, ops / 2, ops - 1} {
			_ = w.apply(i, true, "eth0")
			if err := repair("half prepared"); err == nil || !strings.Contains(err.Error(), "only in part") {
				t.Errorf("killed before change %d of prepare: %v", i, err)
			}
			w.in(func() error { return RestoreAll(t.Context(), w.dir) })
		}
		if err := w.apply(-1, false, "eth0"); err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }() // it is killed
			w.in(func() error {
				store, err := OpenStore(t.Context(), w.dir)
				if err != nil {
					return err
				}
				defer store.Close()
				return Restore(&interrupted{t.Context(), 2, true}, nil, store)
			})
		}()
		if err := repair("half restored"); err == nil || !strings.Contains(err.Error(), "only in part") {
			t.Errorf("killed in restore: %v", err)
		}
		w.in(func() error { return RestoreAll(t.Context(), w.dir) })
		if err := repair("restored"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("restored: %v", err)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		if err := repair("removed"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed: %v", err)
		}
		if _, err := os.Lstat(w.dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is made again: %v", err)
		}
	})
}
