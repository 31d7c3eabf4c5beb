package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// dead is a connection through a Forwarder to a VM that can be made to answer nothing.
type dead struct {
	pod, vm        *podtest.NS
	client, server net.Conn
	end            func()
}

func newDead(t *testing.T, log *slog.Logger, bounds func(*Forwarder)) dead {
	t.Helper()
	d := dead{pod: podtest.New(t), vm: podtest.New(t)}
	d.pod.IP(t, "link set lo up", "link add eth0 type veth peer name eth0 netns "+d.vm.Path(), "link set eth0 up", "addr add 192.0.2.1/24 dev eth0")
	d.vm.IP(t, "link set eth0 up", "addr add 192.0.2.2/24 dev eth0")
	l := d.vm.Listen(t, "192.0.2.2:80")
	var f *Forwarder
	d.pod.In(t, func() (err error) {
		f, err = Listen(t.Context(), log, netip.MustParseAddr("192.0.2.2"), []Port{{Loopback: 80, VM: 80}}, d.pod.Do)
		return err
	})
	bounds(f)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx) }()
	d.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(d.end)
	d.pod.In(t, func() (err error) {
		d.client, err = net.Dial("tcp", "127.0.0.1:80")
		return err
	})
	t.Cleanup(func() { d.client.Close() })
	var err error
	if d.server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.server.Close() })
	return d
}

func (d dead) die(t *testing.T) {
	t.Helper()
	d.vm.Run(t, "nft", "add table ip dead ; add chain ip dead input { type filter hook input priority 0 ; policy drop ; }")
}

// fill sends until nobody takes more.
func (d dead) fill(t *testing.T) {
	t.Helper()
	_ = d.client.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	if n, err := io.Copy(d.client, zeros{}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes were sent: %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// Of a VM that is dead nothing stays open for long once the client has ended.
func TestForwardDeadVM(t *testing.T) {
	t.Parallel()
	d := newDead(t, nil, func(f *Forwarder) {
		if f.giveUp != giveUp {
			t.Errorf("it gives up after %s", f.giveUp)
		}
		f.giveUp = 2 * time.Second
	})
	connections := func() string { return d.pod.Run(t, "ss", "-Htn") }
	if open := d.pod.Run(t, "ss", "-Htno", "dst", "192.0.2.2"); !strings.Contains(open, "timer:(keepalive") {
		t.Errorf("a VM that ends while nothing is sent is not noticed:\n%s", open)
	}
	d.die(t)
	if err := d.client.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(podtest.Patience); ; time.Sleep(50 * time.Millisecond) { // the kernel tells nobody
		open := connections()
		if open == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still open:\n%s", open)
		}
	}
}

// A client that waits for a VM that is dead to take what it sends learns of that.
func TestForwardBlocked(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	d := newDead(t, slog.New(slog.NewTextHandler(&log, nil)), func(f *Forwarder) {
		if f.mute != mute {
			t.Errorf("the VM may be mute for %s", f.mute)
		}
		f.mute = 2 * time.Second
	})
	d.die(t)
	d.fill(t)
	_ = d.client.SetDeadline(time.Now().Add(podtest.Patience))
	if _, err := d.client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the client hears %v", err)
	}
	d.end()
	if !strings.Contains(log.String(), "confirmed nothing") {
		t.Errorf("the log does not say it:\n%s", &log)
	}
}

// A program of the VM that lives, and does not read, is not cut off.
func TestForwardUnread(t *testing.T) {
	t.Parallel()
	d := newDead(t, nil, func(f *Forwarder) { f.mute = 3500 * time.Millisecond })
	d.fill(t)
	time.Sleep(4 * time.Second) // nothing is to happen; until the sixth second probes are at most 3.2 s apart
	go func() { _, _ = io.Copy(io.Discard, d.server) }()
	_ = d.client.SetWriteDeadline(time.Now().Add(podtest.Patience))
	if _, err := d.client.Write(make([]byte, 16<<20)); err != nil {
		t.Errorf("the client can't go on: %v", err)
	}
}

// Once it can't accept any more on one port it ends, though connections are open.
func TestForwardCannotAccept(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	vm := l.Addr().(*net.TCPAddr).AddrPort()
	f, err := Listen(t.Context(), nil, vm.Addr(), []Port{{VM: vm.Port()}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(t.Context()) }()
	client, err := net.Dial("tcp", f.listeners[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := f.listeners[0].Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(podtest.Patience):
		t.Error("it goes on")
	}
}

// A namespace that no CNI was in has its loopback down, and without an address.
func TestLoopbackDown(t *testing.T) {
	t.Parallel()
	pod := podtest.New(t)
	pod.IP(t, "link set lo down", "addr flush dev lo")
	pod.In(t, func() error {
		_, err := Listen(t.Context(), nil, netip.MustParseAddr("192.0.2.2"), []Port{{Loopback: 80, VM: 80}}, nil)
		if !errors.Is(err, unix.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "ip link set lo up") {
			t.Errorf("%v", err)
		}
		return nil
	})
}
