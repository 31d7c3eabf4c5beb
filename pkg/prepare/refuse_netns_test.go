package prepare

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// What an interface has got since its plan was made would be lost: the plan is refused, if
// it takes anything away.
func TestApplyOfOldPlan(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		for what, line := range map[string]string{
			"address 10.99.0.7/24":             "addr add 10.99.0.7/24 dev eth0",
			"route 10.98.0.0/16 via 10.22.0.1": "route add 10.98.0.0/16 via 10.22.0.1",
			"neighbor 10.22.0.9":               "neigh add 10.22.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
			"neighbor 10.22.0.8":               "neigh add proxy 10.22.0.8 dev eth0",
		} {
			b := newBench(t, podtest.BridgeDual, datapath)
			b.pod.IP(t, line)
			before := b.snapshot()
			b.in(func() error {
				store, err := OpenStore(t.Context(), t.TempDir())
				if err != nil {
					return err
				}
				defer store.Close()
				_, _, err = Apply(t.Context(), nil, store, b.plans...)
				if datapath != DefaultDatapath {
					return errors.Join(err, Restore(t.Context(), nil, store))
				}
				expectWords(t, err, []string{"prepare eth0: it has got the " + what + " since it was read", "plan anew"})
				return nil
			})
			b.same(what, before)
		}
	})
}

// Plans that exclude each other are refused before anything is changed.
func TestApplyOfPlansThatExcludeEachOther(t *testing.T) {
	t.Parallel()
	pod := podtest.New(t)
	// Aliases are chosen by the interfaces' indexes, of which so many have one each.
	pod.IP(t, "link add eth0 index 20 up type veth peer name p0", "link add net1 index 2068 up type veth peer name p1",
		"addr add 10.1.0.7/24 dev eth0", "addr add 10.2.0.7/24 dev net1")
	b := newBenchOf(t, pod, "redirect", "eth0", "net1")
	for want, plans := range map[string][]Plan{
		"prepare eth0: there are two plans for it":                                               {b.plans[0], b.plans[0]},
		"prepare net1: the VM's alias 169.254.192.82 is that by eth0, too: choose another alias": b.plans,
		"make it by NewPlan": {{}},
	} {
		b.in(func() error {
			dir := t.TempDir()
			store, err := OpenStore(t.Context(), dir)
			if err != nil {
				return err
			}
			defer store.Close()
			_, _, err = Apply(t.Context(), nil, store, plans...)
			expectWords(t, err, []string{want})
			expectWords(t, CheckApply(dir, plans...), []string{want})
			return nil
		})
	}
}

// A pod that is prepared by names of its own is known without a record that can be used,
// and left alone.
func TestUnrecordedOfOtherNames(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		o := Options{Datapath: datapath, Names: map[string]string{"tap": "vm0"}}
		if datapath == DefaultDatapath {
			o.Names["bridge"], o.Names["uplink"] = "sw0", "ext0"
		}
		pod := podtest.NewPod(t, podtest.BridgeDual)
		used := t.TempDir()
		pod.In(t, func() error { return ApplyAll(t.Context(), used, o, "eth0") })
		before := podtest.TakeSnapshot(t, pod.NS)
		for record, why := range map[string]string{"": "has no record of it", "{": "it is damaged", `{"version": 99}`: "it was written by a newer"} {
			dir := t.TempDir()
			if record != "" {
				if err := os.WriteFile(filepath.Join(dir, "eth0.json"), []byte(record), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			pod.In(t, func() error {
				found, err := ReadUnrecorded(dir)
				if len(found) != 1 || found[0].Interface != "eth0" || !strings.Contains(found[0].Error(), why) {
					t.Errorf("of %q it says %v", record, found)
				}
				expectWords(t, RestoreAll(t.Context(), dir), []string{"eth0 is prepared", why})
				if datapath != DefaultDatapath { // else the placeholder can't be planned
					expectWords(t, ApplyAll(t.Context(), dir, Options{Datapath: datapath}, "eth0"), []string{"eth0 is prepared", why})
				}
				return err
			})
		}
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("afterwards:\n%s", d)
		}
	})
}

// The record of an interface is found by whatever name the kernel lets it have.
func TestNameThatBeginsWithADot(t *testing.T) {
	t.Parallel()
	overBoth(t, func(t *testing.T, datapath string) {
		pod := podtest.NewPod(t, podtest.BridgeDual)
		pod.IP(t, "link set eth0 down", "link set eth0 name .eth0 up")
		pod.Interface = ".eth0"
		dir := t.TempDir()
		pod.In(t, func() error {
			if err := ApplyAll(t.Context(), dir, Options{Datapath: datapath}, pod.Interface); err != nil {
				return err
			}
			if plans, err := ReadPlans(discard, dir); len(plans) != 1 || err != nil {
				t.Errorf("recorded are %v, %v", plans, err)
			}
			return RestoreAll(t.Context(), dir)
		})
	})
}

// The zero Plan is of no interface: it tells nothing, and nothing is done by it.
func TestZeroPlan(t *testing.T) {
	var p Plan
	pods, vms := p.Ports()
	counters, err := p.GuardCounters(nil)
	if p.NIC().Interface != "" || len(p.Links()) > 0 || p.HasTables() || len(counters) > 0 || err != nil || p.IsTable(Difference{}) || !pods.Equal(guest.Ports{}) || !vms.IsZero() ||
		len(p.Warnings(false)) > 0 || p.String() == "" {
		t.Errorf("it is %s, with %v, %v", p, p.Links(), counters)
	}
	_ = p.FiltersGroups()
	if _, ok := p.WithOtherPorts(t.TempDir()); ok {
		t.Error("it is recorded")
	}
	if _, err := p.MarshalJSON(); err != nil {
		t.Error(err)
	}
	_, errWatch := OpenWatch(p)
	_, errDifferences := Differences(p)
	for _, err := range []error{errWatch, errDifferences, CheckSupport(p), p.WaitForwarding(t.Context())} {
		expectWords(t, err, []string{"make it by NewPlan"})
	}
}

// An interface whose record nobody could read again, as one with ten thousand routes, is
// refused before anything is changed.
func TestTooManyRoutes(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{DefaultDatapath, "redirect"} {
		pod, dir := podtest.NewPod(t, podtest.BridgeCNI), t.TempDir()
		lines := make([]string, 10_000)
		for i := range lines {
			lines[i] = fmt.Sprintf("route add 20.0.%d.%d via %s dev eth0", i>>8, i&255, pod.Gateway)
		}
		pod.IP(t, lines...)
		all := func() string {
			return pod.Run(t, "ip", "-br", "link") + pod.Run(t, "ip", "-4", "addr") + pod.Run(t, "ip", "route")
		}
		before := all()
		pod.In(t, func() error {
			err := ApplyAll(t.Context(), dir, Options{Datapath: datapath}, "eth0")
			if err == nil || !strings.Contains(err.Error(), "eth0 has 10") || !strings.Contains(err.Error(), "give the pod fewer") {
				t.Errorf("%s: %v", datapath, err)
			}
			return nil
		})
		if d := podtest.Diff(before, all()); d != "" {
			t.Errorf("%s: the pod is changed:\n%s", datapath, d)
		}
		if records, err := statedir.Records(dir); err != nil || len(records) > 0 {
			t.Errorf("%s: it leaves %q, %v", datapath, records, err)
		}
	}
}
