package prestart_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Whoever deletes what the VM's packets pass through is noticed, by the log, by
// probes, and by status; and so is who puts it back.
func TestMissingLinks(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	said := make(chan string, 64)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)
	until := func(want string) {
		t.Helper()
		for line := range said {
			if strings.Contains(line, want) {
				return
			}
		}
	}
	pod.Pod.IP(t, "link del br-eth0")
	until("links of the VM's network are missing")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := h.Wait(ctx, prestart.ForNetwork)
	if err == nil || !strings.Contains(err.Error(), "missing: br-eth0: ") || !strings.Contains(err.Error(), "run it again") {
		t.Errorf("wait says: %v", err)
	}
	if status := session.Status(); status.Ready || len(status.Missing) != 1 || status.StartSeconds == 0 {
		t.Errorf("status is %+v", status)
	}
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	until("are there again")
	if _, err := h.Wait(t.Context(), prestart.ForNetwork); err != nil {
		t.Error(err)
	}
	pod.Pod.IP(t, "link del up-eth0")
	until("up-eth0")
	if status := session.Status(); status.Ready || len(status.Missing) != 1 {
		t.Errorf("status is %+v", status)
	}
}

// lineWriter sends what is written, as slog does a line at a time.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}
