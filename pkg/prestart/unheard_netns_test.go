package prestart_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What is known of a lease that can't be written is written as soon as it can be.
// Where nothing was kept, a server beside a living VM says that it does not know.
func TestLeaseThatIsNotKept(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	session := run(t, h)
	kept := filepath.Join(h.StateDir, "eth0.lease")
	if err := os.MkdirAll(filepath.Join(kept, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(kept); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(kept); err == nil {
			break
		}
		if time.Since(start) > time.Minute {
			t.Fatal("the lease is not kept though it can be")
		}
	}
	serve := func() *prestart.Session {
		t.Helper()
		if err := session.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if session, err = h.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		return session
	}
	if s := serve().Status(); s.Of("eth0").Lease.State != "bound" || s.Of("eth0").LeaseUnknown {
		t.Errorf("kept, and yet %+v", s)
	}
	// The node has the address, too.
	pod.Node.IP(t, "addr add "+pod.IPv4.Addr().String()+" dev "+pod.NodeLink)
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	events := session.Events(ctx)
	probing := guest.Command(ctx, "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-a", "-s", "/bin/true")
	if err := probing.Start(); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Lease != nil && e.Lease.Type == lease.EventDeclined {
			break
		}
	}
	_ = probing.Process.Kill()
	_ = probing.Wait()
	if s := serve().Status(); s.Of("eth0").LeaseUnknown || !strings.Contains(s.NoLease(), "it declined the address") {
		t.Errorf("declined, and yet %q", s.NoLease())
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(kept); err != nil {
		t.Fatal(err)
	}
	pod.Node.IP(t, "addr del "+pod.IPv4.Addr().String()+" dev "+pod.NodeLink)
	serve()
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	var err error
	for within := 100 * time.Millisecond; within < time.Minute; within *= 4 { // until the server has answered
		ctx, cancel = context.WithTimeout(t.Context(), within)
		defer cancel()
		if _, err = asker(h).Wait(ctx, control.ForLease); err == nil || strings.Contains(err.Error(), "it is unknown") {
			break
		}
	}
	if s := session.Status(); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "it is unknown") || !s.Of("eth0").LeaseUnknown {
		t.Errorf("wait says %v, the status %+v", err, s)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := session.Status(); s.Of("eth0").Lease.State != "bound" || s.Of("eth0").LeaseUnknown {
		t.Errorf("heard, and yet %+v", s)
	}
}
