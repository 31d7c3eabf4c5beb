package podtest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// arpRequest is the frame in which guestMAC asks who has the target.
func arpRequest(sender, target [4]byte) []byte {
	frame := append(bytes.Repeat([]byte{0xff}, 6), guestMAC...)
	frame = append(frame, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, guestMAC...), sender[:]...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), target[:]...)
}

func TestTapCarriesFrames(t *testing.T) {
	t.Parallel()
	for name, queues := range map[string]int{"one queue": 1, "four queues": 4} {
		t.Run(name, func(t *testing.T) {
			pod := NewPod(t, BridgeCNI)
			flags := ""
			if queues > 1 {
				flags = "multi_queue"
			}
			Rewire(t, pod, flags)
			tap, err := OpenTap(pod.NS, "tap0", queues)
			if err != nil {
				t.Fatal(err)
			}
			defer tap.Close()
			if out := pod.Run(t, "ip", "-d", "link", "show", "dev", "tap0"); queues > 1 && !strings.Contains(out, "numqueues 1 numdisabled 3") {
				t.Errorf("queues: %s", out)
			}
			if err := WaitSettled(t.Context(), pod.NS); err != nil {
				t.Fatal(err)
			}
			if _, err := tap.Write(arpRequest([4]byte{10, 22, 0, 7}, [4]byte{10, 22, 0, 1})); err != nil {
				t.Fatal(err)
			}
			if err := tap.SetReadDeadline(time.Now().Add(Patience)); err != nil {
				t.Fatal(err)
			}
			for frame := make([]byte, 2000); ; {
				n, err := tap.Read(frame)
				if err != nil {
					t.Fatalf("no ARP reply: %v", err)
				}
				if n >= 42 && bytes.Equal(frame[:6], guestMAC) && frame[21] == 2 && bytes.Equal(frame[28:32], []byte{10, 22, 0, 1}) {
					return
				}
			}
		})
	}
}

func TestTapErrors(t *testing.T) {
	t.Parallel()
	ns := New(t)
	ns.IP(t, "tuntap add dev one mode tap vnet_hdr", "tuntap add dev many mode tap vnet_hdr multi_queue", "link set one up")
	if _, err := OpenTap(ns, "nosuch", 1); err == nil || !strings.Contains(err.Error(), "nosuch") {
		t.Errorf("OpenTap of no device: %v", err)
	}
	if _, err := OpenTap(ns, "one", 2); !errors.Is(err, unix.EINVAL) {
		t.Errorf("OpenTap of a single-queue device with two: %v, want EINVAL", err)
	}
	if _, err := OpenTap(ns, "many", 1); !errors.Is(err, unix.EINVAL) {
		t.Errorf("OpenTap of a multi-queue device with one: %v, want EINVAL", err)
	}
	tap, err := OpenTap(ns, "one", 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenTap(ns, "one", 1); !errors.Is(err, unix.EBUSY) {
		t.Errorf("OpenTap of a tap in use: %v, want EBUSY", err)
	}
	if err := tap.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 2000)
	for err = nil; err == nil; {
		_, err = tap.Read(frame) // what IPv6 sends by itself
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read after the deadline: %v", err)
	}
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tap.Read(frame); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if out := ns.Run(t, "ip", "link", "show", "dev", "one"); !strings.Contains(out, "NO-CARRIER") {
		t.Errorf("the device still has a carrier: %s", out)
	}
}

// A tap that was closed can be opened, whatever is started meanwhile.
func TestOpenTapOnceClosed(t *testing.T) {
	t.Parallel()
	ns := NewTapNS(t)
	ended, done := make(chan struct{}), make(chan struct{})
	defer func() { close(ended); <-done }()
	go func() {
		defer close(done)
		for {
			select {
			case <-ended:
				return
			default:
				_ = exec.Command("true").Run()
			}
		}
	}()
	for range 300 {
		tap, err := OpenTap(ns, "tap0", 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := tap.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
