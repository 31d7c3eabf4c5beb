package agent_test

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// A pod costs some descriptors, and no thread.
func TestCostOfPod(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.startProcess(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	const pods = 12
	vms := make([]vm, pods)
	for i := range vms {
		pod := podtest.NewPod(t, podtest.CalicoDual)
		vms[i] = n.prepare(t, pod, n.mount(t, pod.NS, fmt.Sprint("vm", i)), "eth0", nil)
	}
	attach := func(vms []vm) {
		var all errgroup.Group
		for _, v := range vms {
			all.Go(func() error { return n.client().Attach(t.Context(), v.ContainerID, "eth0") })
		}
		if err := all.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	count := func(what string) int {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	attach(vms[:1])
	files := count("fd")
	attach(vms[1:])
	perPod := float64(count("fd")-files) / (pods - 1)
	threads := count("task")
	t.Logf("%.1f descriptors for each pod, %d threads for all", perPod, threads)
	if perPod > 24 || threads > 2*pods {
		t.Errorf("each pod has %.1f descriptors, and all %d threads", perPod, threads)
	}
	for _, v := range vms {
		if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if left := count("fd"); left > files {
		t.Errorf("%d descriptors are left of %d before", left, files)
	}
}
