package prestart

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A repair that finds that nothing is left to be done is none of those that are limited.
func TestRepairsAreCounted(t *testing.T) {
	t.Parallel()
	plan, err := prepare.NewPlan(discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500, Up: true, ARP: true, Ethernet: true,
		Addresses: []discover.Address{{Prefix: netip.MustParsePrefix("10.0.0.2/24")}},
	}, prepare.Options{Datapath: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	for _, repaired := range []bool{false, true} {
		var log bytes.Buffer
		tried := 0
		w := &watch{
			plan: new(atomic.Pointer[prepare.Plan]), log: slog.New(slog.NewTextHandler(&log, nil)),
			found: []prepare.Difference{{Interface: "eth0", What: "the port guard"}},
			repairer: newRepairer(func(context.Context) (bool, error) {
				tried++
				return repaired, nil
			}),
		}
		w.plan.Store(&plan)
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 * repairsAtOnce {
			w.repair(ctx, false)
		}
		cancel()
		w.running.Wait()
		if want := map[bool]int{true: repairsAtOnce, false: 2 * repairsAtOnce}[repaired]; tried != want {
			t.Errorf("repaired %t: tried %d times, not %d", repaired, tried, want)
		}
		if strings.Contains(log.String(), "again and again") != repaired {
			t.Errorf("repaired %t: it logs %s", repaired, &log)
		}
	}
}
