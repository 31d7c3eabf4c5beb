package prestart_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Who asks on the node about a sidecar is told where that has its files.
func TestStateDirectoryInContainer(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	run(t, h)
	h.StateDir = t.TempDir() // not the one in the container
	status, err := h.Status(t.Context())
	if want := fmt.Sprintf("/proc/%d/root", os.Getpid()); err != nil || !strings.Contains(status.Server.Error, want) {
		t.Errorf("want %s in %v, %+v", want, err, status.Server)
	}
}
