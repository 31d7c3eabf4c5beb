package prepare_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Tables that were deleted are made again, and nothing else is changed: neither a link that
// differs, too, nor a pod that has been put back meanwhile.
func TestRepairTables(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{podtest.SwitchPath, "redirect"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			dir := t.TempDir()
			before := podtest.TakeSnapshot(t, pod.NS)
			repair := func() (repaired bool) {
				t.Helper()
				pod.In(t, func() (err error) {
					if repaired, err = prepare.RepairTables(t.Context(), nil, dir, pod.Interface); errors.Is(err, fs.ErrNotExist) {
						err = nil
					}
					return err
				})
				return repaired
			}
			var plan prepare.Plan
			pod.In(t, func() (err error) {
				plan, err = prepare.ApplyOne(t.Context(), dir, prepare.Options{Datapath: datapath}, pod.Interface)
				return err
			})
			tap := plan.NIC().Tap
			if repair() {
				t.Error("a pod that is as planned is repaired")
			}
			pod.IP(t, "link set "+tap+" down")
			prepared := podtest.TakeSnapshot(t, pod.NS)
			pod.Run(t, "nft", "flush", "ruleset")
			var tables int
			pod.In(t, func() error {
				found, err := prepare.Differences(plan)
				for _, d := range found {
					if isLink := d.What == tap; plan.IsTable(d) == isLink {
						t.Errorf("%s is taken for the wrong kind of thing", d)
					} else if !isLink {
						tables++
					}
				}
				return err
			})
			if tables == 0 || !repair() || repair() {
				t.Errorf("%d tables differ, and are not repaired once", tables)
			}
			if d := podtest.Diff(prepared, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("repaired it is another pod:\n%s", d)
			}
			pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if repair() {
				t.Error("a pod that is put back is repaired")
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("put back:\n%s", d)
			}
			if rules := pod.Run(t, "nft", "list", "ruleset"); strings.TrimSpace(rules) != "" {
				t.Errorf("there are\n%s", rules)
			}
		})
	}
}
