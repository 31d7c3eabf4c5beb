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

// NIC is a Tap of a test, which ends if the tap fails.
type NIC struct {
	*Tap
	t testing.TB
}

// NewNIC opens a pod's tap, which has one queue, and waits until it carries
// frames. It is closed at the test's end at the latest.
func NewNIC(t testing.TB, pod *NS, tap string) NIC {
	t.Helper()
	opened, err := OpenTap(pod, tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	if err := WaitSettled(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	return NIC{opened, t}
}

// Send sends a frame.
func (n NIC) Send(frame []byte) {
	n.t.Helper()
	if _, err := n.Write(frame); err != nil {
		n.t.Fatal(err)
	}
}

// Receive reads frames until one is wanted, which it returns, or for a time, and
// then returns nil.
func (n NIC) Receive(within time.Duration, wanted func(frame []byte) bool) []byte {
	n.t.Helper()
	if err := n.SetReadDeadline(time.Now().Add(within)); err != nil {
		n.t.Fatal(err)
	}
	for {
		frame := make([]byte, 2048)
		size, err := n.Read(frame)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			n.t.Fatal(err)
		}
		if wanted(frame[:size]) {
			return frame[:size]
		}
	}
}
