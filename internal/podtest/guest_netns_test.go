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

// rewire does by hand what the product does: the pod's address goes away, its
// interface and a tap become ports of a bridge.
func rewire(t *testing.T, pod *Pod, tapFlags string) {
	t.Helper()
	pod.Pod.IP(t,
		"addr flush dev eth0",
		"link add br0 type bridge forward_delay 0 mcast_snooping 0",
		"tuntap add dev tap0 mode tap vnet_hdr "+tapFlags,
		"link set eth0 master br0",
		// A hairpin port of the node sends the guest's broadcasts back to us.
		"link set eth0 type bridge_slave learning off",
		"link set tap0 master br0",
		"link set tap0 up",
		"link set br0 up")
}

// serveDHCP starts dnsmasq on the pod's bridge as the guest's DHCP server.
func serveDHCP(t *testing.T, pod *Pod) {
	t.Helper()
	pod.Pod.IP(t, "addr add 169.254.75.10/32 dev br0")
	address := pod.IP.Addr().String()
	cmd := pod.Pod.Command(t.Context(), "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0",
		"--bind-interfaces", "--interface=br0", "--except-interface=lo", "--shared-network=br0,"+address,
		"--dhcp-authoritative", "--no-ping", "--leasefile-ro", "--pid-file=",
		"--dhcp-range="+address+",static,255.255.255.255,24h",
		"--dhcp-host="+guestMAC.String()+","+address+",guest7",
		"--dhcp-option=option:netmask,255.255.255.255",
		"--dhcp-option-force=121,"+pod.Gateway.String()+"/32,0.0.0.0,0.0.0.0/0,"+pod.Gateway.String(),
		"--dhcp-option-force=26,1450",
		"--dhcp-option=option:dns-server,10.96.0.10",
		"--dhcp-option-force=option:domain-search,ns.svc.cluster.local,cluster.local")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := make(chan error, 1)
	go func() {
		var said strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := stderr.Read(buf)
			said.Write(buf[:n])
			if strings.Contains(said.String(), "DHCP, sockets bound") {
				started <- nil
				_, _ = io.Copy(io.Discard, stderr)
				return
			}
			if err != nil {
				started <- errors.New(said.String())
				return
			}
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("dnsmasq did not start: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func TestGuestGetsLease(t *testing.T) {
	pod := NewPod(t, Calico)
	rewire(t, pod, "")
	serveDHCP(t, pod)
	before, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		t.Fatal(err)
	}
	guest := NewGuest(t, pod.Pod, "tap0", guestMAC)
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
	ping(t, pod.Node, pod.IP.Addr())
	if after, err := os.ReadFile("/etc/resolv.conf"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("our own resolv.conf changed: %v\n%s", err, after)
	}
}

func TestGuestWithoutServer(t *testing.T) {
	pod := NewPod(t, Bridge)
	rewire(t, pod, "")
	guest := NewGuest(t, pod.Pod, "tap0", guestMAC)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if lease, err := guest.Udhcpc(ctx); err == nil {
		t.Errorf("got a lease from nobody: %v", lease)
	}
}

// Large segments with partial checksums arrive whole, in both directions.
func TestGuestOffload(t *testing.T) {
	pod := NewPod(t, Bridge)
	rewire(t, pod, "")
	guest := NewGuest(t, pod.Pod, "tap0", guestMAC)
	guest.IP(t, "addr add "+pod.IP.String()+" dev eth0", "route add default via "+pod.Gateway.String())
	capture := StartCapture(t, guest.NS, "eth0", "tcp and greater 3000")

	data := make([]byte, 4<<20)
	source := rand.NewChaCha8([32]byte{1})
	if _, err := source.Read(data); err != nil {
		t.Fatal(err)
	}
	listener := listenIn(t, pod.Outside, OutsideIP.String()+":0")
	echoed := make(chan error, 1)
	go func() { echoed <- echo(listener) }()
	var conn net.Conn
	if err := guest.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
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

// listenIn listens in the namespace on the calling thread.
func listenIn(t *testing.T, ns *NS, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	if err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
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
