package podtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

var guestMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x07}

func TestGuestGetsLease(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, Calico)
	Rewire(t, pod, "")
	ServeDHCP(t, pod, guestMAC)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	guest := NewGuest(t, pod.NS, "tap0", guestMAC)
	lease, err := guest.Udhcpc(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ip": "192.168.79.5", "mask": "32", "mtu": "1450", "dns": "10.96.0.10", "hostname": "guest7",
		"staticroutes": "169.254.1.1/32 0.0.0.0 0.0.0.0/0 169.254.1.1",
		"search":       "ns.svc.cluster.local cluster.local",
		"serverid":     "169.254.75.10", "lease": "86400",
	} {
		if lease[name] != want {
			t.Errorf("lease: %s=%q, want %q", name, lease[name], want)
		}
	}
	if got, want := trimLines(guest.Run(t, "ip", "route")), "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link\n"; got != want {
		t.Errorf("guest's routes:\n%swant:\n%s", got, want)
	}
	if got, want := guest.Run(t, "cat", "/etc/resolv.conf"), "search ns.svc.cluster.local cluster.local\nnameserver 10.96.0.10\n"; got != want {
		t.Errorf("guest's resolv.conf:\n%swant:\n%s", got, want)
	}
	if out := guest.Run(t, "ip", "-br", "link", "show", "dev", "eth0"); !strings.Contains(out, guestMAC.String()) {
		t.Errorf("guest's interface: %s", out)
	}
	ping(t, guest, OutsideIP)
	ping(t, pod.Node, pod.IPv4.Addr())
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("our own resolv.conf changed: %v\n%s", err, after)
	}
}

func TestGuestWithoutServer(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, BridgeCNI)
	Rewire(t, pod, "")
	guest := NewGuest(t, pod.NS, "tap0", guestMAC)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if lease, err := guest.Udhcpc(ctx); err == nil {
		t.Errorf("got a lease from nobody: %v", lease)
	}
}

// Large segments with partial checksums arrive whole, in both directions.
func TestGuestOffload(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, BridgeCNI)
	Rewire(t, pod, "")
	guest := NewGuest(t, pod.NS, "tap0", guestMAC)
	guest.IP(t, "addr add "+pod.IPv4.String()+" dev eth0", "route add default via "+pod.Gateway.String())
	capture := StartCapture(t, guest.NS, "eth0", "tcp and greater 3000")

	data := make([]byte, 4<<20)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(data); err != nil {
		t.Fatal(err)
	}
	listener := pod.Outside.Listen(t, OutsideIP.String()+":0")
	echoed := make(chan error, 1)
	go func() { echoed <- echo(listener) }()
	var conn net.Conn
	if err := guest.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", listener.Addr().String(), Patience)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(data)
		sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(conn)
	if err := errors.Join(err, <-sent, <-echoed); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("sent %d bytes, got others back (%d)", len(data), len(got))
	}
	capture.Wait("Flags") // or frames were small, and nothing was shown
}

func echo(listener net.Listener) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(conn, conn)
	return err
}
