package prestart_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What a caller branches on can be told apart.
func TestErrorsOfHook(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	if _, err := h.Serve(t.Context()); !errors.Is(err, prestart.ErrNotPrepared) {
		t.Errorf("serve: %v", err)
	}
	nowhere := h
	nowhere.Interfaces, nowhere.Timeout = []string{"eth7"}, time.Second
	_, err := nowhere.Run(t.Context())
	timeout, ok := errors.AsType[*prestart.TimeoutError](err)
	if !ok || timeout.After != nowhere.Timeout || !errors.Is(err, context.DeadlineExceeded) || !isNotFound(err, "eth7") {
		t.Errorf("an interface that does not come: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := nowhere.Run(over); !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a context that is over: %v", err)
	}
	loopback := h
	loopback.Interfaces = []string{"lo"}
	pod.IP(t, "addr add 192.0.2.1/32 dev lo")
	_, err = loopback.Plan(t.Context())
	if unusable, ok := errors.AsType[*prepare.UnusableError](err); !ok || unusable.Interface != "lo" {
		t.Errorf("the loopback: %v", err)
	}
	pod.IP(t, "addr del 192.0.2.1/32 dev lo", "link add tap-eth0 "+podtest.Switch)
	_, err = h.Prepare(t.Context())
	if taken, ok := errors.AsType[*prepare.NameTakenError](err); !ok || taken.Name != "tap-eth0" || taken.For != "tap" {
		t.Errorf("a name that is taken: %v", err)
	}
	pod.IP(t, "link del tap-eth0")
	run(t, h)
	_, err = h.Run(t.Context())
	if served, ok := errors.AsType[*prestart.ServedError](err); !ok || served.PID != os.Getpid() {
		t.Errorf("a pod that is served: %v", err)
	}
	waiting, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	elsewhere := newHook(t, podtest.NewPod(t, podtest.Flannel))
	if _, err := asker(elsewhere).Wait(waiting, control.ForNetwork); !errors.Is(err, control.ErrNobodyServes) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait where nobody serves: %v", err)
	}
	other := h
	other.Network.MTU = 1400
	_, err = other.Prepare(t.Context())
	if options, ok := errors.AsType[*prepare.OptionsError](err); !ok || options.Interface != "eth0" || len(options.Differences) == 0 {
		t.Errorf("other options: %v", err)
	}
}
