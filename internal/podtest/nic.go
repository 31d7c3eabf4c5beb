package podtest

import (
	"errors"
	"os"
	"testing"
	"time"
)

// NewTapNS makes a namespace for a test with a tap as a pod has it: tap0,
// persistent, with one queue, up, and without an address of its own.
func NewTapNS(t testing.TB) *NS {
	t.Helper()
	pod := New(t)
	pod.IP(t, "tuntap add dev tap0 mode tap vnet_hdr", "link set tap0 addrgenmode none", "link set tap0 up")
	return pod
}

// Seat is a Tap of a test, which ends if the tap fails.
type Seat struct {
	*Tap
	t testing.TB
}

// Sit is SitAt tap0 of a NewTapNS.
func Sit(t testing.TB, pod *NS) Seat {
	t.Helper()
	return SitAt(t, pod, "tap0")
}

// SitAt opens a pod's tap, which has one queue, and waits until it carries
// frames. It is closed at the test's end at the latest.
func SitAt(t testing.TB, pod *NS, name string) Seat {
	t.Helper()
	tap, err := OpenTap(pod, name, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tap.Close() })
	if err := WaitSettled(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return Seat{tap, t}
}

// Send sends a frame.
func (s Seat) Send(frame []byte) {
	s.t.Helper()
	if _, err := s.Write(frame); err != nil {
		s.t.Fatal(err)
	}
}

// Receive reads frames until one is wanted, which it returns, or for a time, and
// then returns nil.
func (s Seat) Receive(within time.Duration, wanted func(frame []byte) bool) []byte {
	s.t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(within)); err != nil {
		s.t.Fatal(err)
	}
	for {
		frame := make([]byte, 2048)
		n, err := s.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if wanted(frame[:n]) {
			return frame[:n]
		}
	}
}
