package prepare

import (
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// The switches that only one of two datapaths of a pod turns off are put back with it,
// whichever was prepared first: the other one's record has nothing of them.
func TestMixedDatapathsSwitches(t *testing.T) {
	t.Parallel()
	for _, order := range [][]string{{"redirect", podtest.SwitchPath}, {podtest.SwitchPath, "redirect"}} {
		pod := threeNets(t)
		before := podtest.TakeSnapshot(t, pod)
		dir := t.TempDir()
		for i, name := range []string{"eth0", "net1"} {
			pod.In(t, func() error { return ApplyAll(t.Context(), dir, Options{Datapath: order[i]}, name) })
		}
		if got := pod.Run(t, "cat", "/proc/sys/"+podtest.SwitchFilter+"iptables"); got != "0\n" {
			t.Errorf("%v: the switch is %q", order, got)
		}
		pod.In(t, func() error { return RestoreAll(t.Context(), dir) })
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod)); d != "" {
			t.Errorf("%v: after restore:\n%s", order, d)
		}
	}
}
