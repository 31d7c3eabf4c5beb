package ra

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// patience bounds all waiting for what must happen.
const patience = 30 * time.Second

// serveOn advertises on the tap for the test's time.
func serveOn(t *testing.T, pod *podtest.NS, a Advertisement) *Server {
	t.Helper()
	var s *Server
	if err := pod.Do(func() (err error) {
		s, err = NewServer("tap0", guestMAC, a, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, lease.ErrGone) {
			t.Errorf("serve: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// guestEnd is the guest's side of the tap.
type guestEnd struct{ podtest.NIC }

func openGuest(t *testing.T, pod *podtest.NS) guestEnd {
	return guestEnd{podtest.NewNIC(t, pod, "tap0")}
}

// receive returns the next advertisement that comes within a time.
func (s guestEnd) receive(within time.Duration) (p packet.Packet6, ok bool) {
	s.Receive(within, func(frame []byte) bool {
		var err error
		p, err = packet.Parse6(frame, unix.IPPROTO_ICMPV6, false)
		ok = err == nil && p.Payload[0] == 134
		return ok
	})
	return p, ok
}

func await(t *testing.T, s *Server, what string, until func(Status) bool) (status Status) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := s.base.Wait(ctx, func(lease.Status) bool {
		status = s.Status()
		return until(status)
	})
	if err != nil {
		t.Fatalf("%s: %v\n%+v", what, err, status)
	}
	return status
}

// TestOverTap: a guest that sits down is told at once, and answered when it asks.
func TestOverTap(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, onLink())
	guest := openGuest(t, pod)
	toAll, ok := guest.receive(patience)
	if !ok || toAll.Dst != allNodes || toAll.DstMAC != packet.MulticastMAC(allNodes) || toAll.Src != router ||
		toAll.SrcMAC != routerMAC || toAll.HopLimit != 255 {
		t.Fatalf("got %+v, %v", toAll, ok)
	}

	guest.Send(solicit(guestLocal, sourceOption))
	answer, ok := guest.receive(patience)
	if !ok || answer.Dst != guestLocal || answer.DstMAC != guestMAC || string(answer.Payload[4:]) != string(toAll.Payload[4:]) {
		t.Fatalf("got %+v, %v", answer, ok)
	}
	status := await(t, s, "answered", func(s Status) bool { return s.Sent["RA"] == 1 })
	if !status.Serving || status.Received["RS"] != 1 || len(status.Dropped) != 0 || status.Router != router || status.LastMessage.At.IsZero() {
		t.Errorf("status is %+v", status)
	}

	// Who has no address yet is answered with all others, which may be later.
	asked := time.Now()
	guest.Send(solicit(netip.IPv6Unspecified(), nil))
	if again, ok := guest.receive(patience); !ok || again.Dst != allNodes {
		t.Errorf("after %v got %+v, %v", time.Since(asked), again, ok)
	}

	for _, frame := range [][]byte{
		damaged(solicit(guestLocal, nil)),
		solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.HopLimit = 64 }),
		solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.SrcMAC = mac.Addr{2, 9} }),
		solicit(guestLocal, []byte{1, 0}),
		append(solicit(guestLocal, nil), make([]byte, packet.MaxFrame)...),
		solicit(guestLocal, nil, func(_ *packet.Packet6, b []byte) { b[0] = 135 }), // not even looked at
	} {
		guest.Send(frame)
	}
	status = await(t, s, "dropped", func(s Status) bool {
		return s.Dropped[lease.DropBadChecksum] == 1 && s.Dropped[lease.DropBadHopLimit] == 1 && s.Dropped[lease.DropOtherSource] == 1 && s.Dropped[lease.DropMalformed] == 1 && s.Dropped[lease.DropBadFrame] == 1
	})
	if len(status.Dropped) != 5 || status.Received["RS"] != 2 {
		t.Errorf("status is %+v", status)
	}
}

// TestNextGuest: each that opens the tap is told.
func TestNextGuest(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, calico())
	for range 3 {
		guest := openGuest(t, pod)
		if _, ok := guest.receive(patience); !ok {
			t.Fatal("not told")
		}
		if err := guest.Close(); err != nil {
			t.Fatal(err)
		}
		pod.IP(t, "link set tap0 down")
		pod.IP(t, "link set tap0 up")
	}
	if got := s.Status(); got.LastError.Error != "" {
		t.Errorf("status is %+v", got)
	}
}

// TestFlood: a guest that asks without end gets no more than the budget, and no
// more to all than one in three seconds.
func TestFlood(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, calico())
	guest := openGuest(t, pod)
	guest.receive(patience)
	start := time.Now()
	frames := [][]byte{solicit(guestLocal, nil), solicit(netip.IPv6Unspecified(), nil)}
	for range 5000 {
		for _, frame := range frames {
			guest.Send(frame)
		}
	}
	status := await(t, s, "over budget", func(s Status) bool { return s.Dropped[lease.DropOverBudget] > 1000 })
	elapsed := time.Since(start).Seconds()
	if got := float64(status.Received["RS"]); got > budget*(elapsed+1)+1 {
		t.Errorf("%v looked at within %v s", got, elapsed)
	}
	if got := float64(status.Sent["RA-to-all"]); got > elapsed/minDelayBetweenRAs.Seconds()+2 {
		t.Errorf("%v sent to all within %v s", got, elapsed)
	}
}

func TestGone(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, calico())
	await(t, s, "serving", func(s Status) bool { return s.Serving })
	pod.IP(t, "link del tap0")
	status := await(t, s, "ended", func(s Status) bool { return !s.Serving })
	if status.LastError.Error == "" {
		t.Errorf("status is %+v", status)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	bad := calico()
	bad.Router = netip.Addr{}
	err := pod.Do(func() error {
		for _, c := range []struct {
			tap   string
			guest mac.Addr
			a     Advertisement
		}{
			{"nothing", guestMAC, calico()},
			{"lo", guestMAC, calico()},
			{"", guestMAC, calico()},
			{"tap0", mac.Addr{}, calico()},
			{"tap0", mac.Addr{1}, calico()},
			{"tap0", guestMAC, bad},
		} {
			if s, err := NewServer(c.tap, c.guest, c.a, nil); err == nil {
				t.Errorf("%+v: no error", c)
				_ = s.Close()
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
