package dhcp6

import (
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// TestLink: down and up, guest gone and back, the tap deleted.
func TestLink(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, testLease())
	for range 2 {
		guest := openGuest(t, pod)
		guest.ask(message(solicit, na(1)))
		pod.IP(t, "link set tap0 down", "link set tap0 up")
		if err := podtest.WaitSettled(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		guest.ask(message(solicit, na(1)))
		if err := guest.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Status(); got.LastError.Error != "" || !got.Serving {
		t.Errorf("status is %+v", got)
	}
	pod.IP(t, "link del tap0")
	if status := await(t, s, "ended", func(s lease.Status) bool { return !s.Serving }); status.LastError.Error == "" {
		t.Errorf("status is %+v", status)
	}
}

// TestFull: a guest that takes no answers does without, and does not keep the
// server.
func TestFull(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	pod.Run(t, "tc", "qdisc", "add", "dev", "tap0", "root", "tbf", "rate", "8bit", "burst", "1600", "limit", "100000000")
	s := serveOn(t, pod, testLease(), func(s *leaseServer) { s.SetBudget(1000) })
	guest := openGuest(t, pod)
	frame := frameOf(message(solicit, na(1)))
	for deadline := time.Now().Add(patience); s.Status().Dropped[lease.DropUnsent] == 0; guest.Send(frame) {
		if time.Now().After(deadline) {
			t.Fatalf("status is %+v", s.Status())
		}
	}
}
