package prestart_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// asking is a log that asks the session for its status at each line.
type asking struct {
	session *atomic.Pointer[prestart.Session]
	lines   *atomic.Int64
	differs *atomic.Bool
}

func (asking) Enabled(context.Context, slog.Level) bool { return true }

func (a asking) Handle(_ context.Context, r slog.Record) error {
	if s := a.session.Load(); s != nil {
		s.Status()
		s.Interfaces()
		_, _ = s.GuardCounters()
		a.lines.Add(1)
		if r.Level == slog.LevelError {
			a.differs.Store(true)
		}
	}
	return nil
}

func (a asking) WithAttrs([]slog.Attr) slog.Handler { return a }
func (a asking) WithGroup(string) slog.Handler      { return a }

// Who waits for a process that waits for the CNI says so.
func TestWaitForOtherIsTold(t *testing.T) {
	t.Parallel()
	h := newHook(t, podtest.NewPod(t, podtest.Flannel))
	log := &podtest.Buffer{}
	ctx, cancel := context.WithCancel(t.Context())
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	first := h
	first.Log, first.Interfaces, first.Timeout = slog.New(slog.NewTextHandler(log, nil)), []string{"net7"}, 0
	both.Go(func() { _, _ = first.Prepare(ctx) })
	log.Wait(t, "waiting for the CNI")
	h.Log = first.Log
	both.Go(func() { _, _ = h.Restore(ctx) })
	log.Wait(t, "waiting for another process")
}

// What writes the log may ask the session, as a launcher does that tells of a lease: no
// line is written under a lock that the answer takes.
func TestLogAsksSession(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	log := asking{new(atomic.Pointer[prestart.Session]), new(atomic.Int64), new(atomic.Bool)}
	h.Interfaces, h.Log = []string{"eth0"}, slog.New(log)
	session := run(t, h)
	log.session.Store(session)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	// Who begins to read events has the server tell what it has not told yet.
	var readers sync.WaitGroup
	leased, stop := context.WithCancel(t.Context())
	readers.Go(func() {
		for leased.Err() == nil {
			ctx, end := context.WithCancel(leased)
			session.Events(ctx)
			end()
		}
	})
	vm := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if _, err := vm.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := session.WaitLease(t.Context(), "eth0"); err != nil {
		t.Error(err)
	}
	stop()
	readers.Wait()
	pod.IP(t, "link set tap-net1 down")
	for !log.differs.Load() {
		if t.Context().Err() != nil {
			t.Fatal("the log does not say that a tap is down")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	if log.lines.Load() < 5 {
		t.Errorf("the log has %d lines", log.lines.Load())
	}
}
