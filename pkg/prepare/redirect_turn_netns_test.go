package prepare_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Ports of the tests that change whose they are.
const (
	vmStays, vmLoses   = 22, 80     // the VM's, and the pod's from then on
	podStays, podLoses = 8080, 8081 // the pod's, and the VM's from then on
)

// turns change whose ports those are, in each way that there is.
var turns = []struct{ name, pods, vms, podsThen, vmsThen string }{
	{"pod-ports to vm-ports", "8080,8081", "", "", "22,8081"},
	{"vm-ports to pod-ports", "", "22,80", "80,8080", ""},
	{"pod-ports to others", "8080,8081", "", "80,8080", ""},
	{"vm-ports to others", "", "22,80", "", "22,8081"},
}

func parsePorts(t *testing.T, text string) (p guest.Ports) {
	t.Helper()
	if text != "" {
		if err := p.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// talk is a TCP connection between one of the two and who is outside.
type talk struct {
	what      string
	own, peer net.Conn
}

// connecting has clients connect to servers. Each listens once: a process that is just being
// started may hold a listener that was closed.
type connecting struct{ listening map[string]net.Listener }

func (c *connecting) connect(t *testing.T, client, server host, to netip.AddrPort) (ofClient, ofServer net.Conn) {
	t.Helper()
	name := server.name + to.String()
	l := c.listening[name]
	if l == nil {
		l = server.Listen(t, to.String())
		c.listening[name] = l
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(podtest.Patience))
	ofClient, err := client.dial("tcp", to, 0)
	if err == nil {
		t.Cleanup(func() { ofClient.Close() })
		ofServer, err = l.Accept()
	}
	if err != nil {
		t.Fatalf("%s to the %s at %s: %v", client.name, server.name, to, err)
	}
	t.Cleanup(func() { ofServer.Close() })
	return ofClient, ofServer
}

// talks are a connection of each kind: of either, opened or accepted, at a port that stays
// and at one that changes hands.
func (r *trio) talks(t *testing.T, c *connecting, kind string) (all []talk) {
	t.Helper()
	for _, a := range r.families() {
		for _, who := range []host{r.vm, r.pod} {
			own, peer := c.connect(t, who, r.outside, netip.AddrPortFrom(a.outside, 7000))
			all = append(all, talk{fmt.Sprintf("%s, opened by the %s at %s", kind, who.name, a.own), own, peer})
			ports := []uint16{vmStays, vmLoses}
			if who.name == "pod" {
				ports = []uint16{podStays, podLoses}
			}
			for _, port := range ports {
				peer, own := c.connect(t, r.outside, who, netip.AddrPortFrom(a.own, port))
				all = append(all, talk{fmt.Sprintf("%s, accepted by the %s at %s port %d", kind, who.name, a.own, port), own, peer})
			}
		}
	}
	return all
}

// peerSpeaks has the peer say something, and then hear the same from who has the connection.
func (c talk) peerSpeaks() error {
	for _, way := range [][2]net.Conn{{c.peer, c.own}, {c.own, c.peer}} {
		if _, err := io.WriteString(way[0], "spoken"); err != nil {
			return err
		}
		_ = way[1].SetReadDeadline(time.Now().Add(podtest.Patience))
		b := make([]byte, 6)
		if n, err := io.ReadFull(way[1], b); err != nil || string(b) != "spoken" {
			return fmt.Errorf("%q is heard: %w", b[:n], err)
		}
	}
	return nil
}

// turn gives ports to others.
func (r *trio) turn(t *testing.T, pods, vms string) {
	t.Helper()
	o := r.o
	o.PodPorts, o.VMPorts = parsePorts(t, pods), parsePorts(t, vms)
	r.prepare(t, o)
}

// Whoever has a TCP connection keeps it when ports change hands, whether it was opened or
// accepted, at whatever port, and though its peer is the first to say something then. New
// connections go to who has the port.
func TestRedirectTurn(t *testing.T) {
	t.Parallel()
	for _, c := range turns {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newTrio(t, podtest.BridgeDual, prepare.Options{PodPorts: parsePorts(t, c.pods), VMPorts: parsePorts(t, c.vms)})
			s := &connecting{map[string]net.Listener{}}
			silent, all := r.talks(t, s, "silent"), r.talks(t, s, "used")
			for _, c := range all {
				if err := c.peerSpeaks(); err != nil {
					t.Fatalf("before: %s: %v", c.what, err)
				}
			}
			r.turn(t, c.podsThen, c.vmsThen)
			for _, c := range append(all, silent...) {
				if err := c.peerSpeaks(); err != nil {
					t.Errorf("%s: %v", c.what, err)
				}
			}
			for _, a := range r.families() {
				s.connect(t, r.outside, r.vm, netip.AddrPortFrom(a.own, podLoses))
				s.connect(t, r.outside, r.pod, netip.AddrPortFrom(a.own, vmLoses))
			}
		})
	}
}

// Without the egress hook nothing tells what the pod has accepted: its connections at a port
// that becomes the VM's are lost. All others go on.
func TestRedirectTurnWithoutEgressHook(t *testing.T) {
	t.Parallel()
	for _, c := range turns {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := podtest.NewPod(t, podtest.BridgeDual)
			if err := p.Sysctl("net/ipv4/ip_local_port_range", "28672 32767"); err != nil {
				t.Fatal(err)
			}
			if err := podtest.WaitSettled(t.Context(), p.NS); err != nil {
				t.Fatal(err)
			}
			o := prepare.Options{PodPorts: parsePorts(t, c.pods), VMPorts: parsePorts(t, c.vms)}
			r := newTrioOf(t, p, o, func(in *discover.Interface) { in.NoEgress, in.LocalPorts = true, [2]uint16{28672, 32767} })
			all := r.talks(t, &connecting{map[string]net.Listener{}}, "silent")
			r.turn(t, c.podsThen, c.vmsThen)
			for _, c := range all {
				own := netip.MustParseAddrPort(c.own.LocalAddr().String())
				if err := c.peerSpeaks(); (err != nil) != (own.Port() == podLoses) {
					t.Errorf("%s: %v", c.what, err)
				}
			}
		})
	}
}

// A turn is one transaction: no segment gets to who does not have its connection, whose
// answer would be a reset, though all peers send all the time.
func TestRedirectTurnsWhilePeersSend(t *testing.T) {
	t.Parallel()
	c := turns[0]
	r := newTrio(t, podtest.BridgeDual, prepare.Options{PodPorts: parsePorts(t, c.pods)})
	all := r.talks(t, &connecting{map[string]net.Listener{}}, "busy")
	resets := podtest.StartCapture(t, r.shape.Node, r.shape.NodeLink, "tcp[tcpflags] & tcp-rst != 0 or (ip6 and ip6[6] = 6 and ip6[53] & 4 != 0)")
	var busy sync.WaitGroup
	done := make(chan struct{})
	for _, c := range all {
		busy.Go(func() { _, _ = io.Copy(io.Discard, c.own) })
		busy.Go(func() {
			defer c.peer.Close()
			next := time.NewTicker(time.Millisecond)
			defer next.Stop()
			for {
				select {
				case <-done:
					return
				case <-next.C:
				}
				if _, err := io.WriteString(c.peer, "more"); err != nil {
					t.Errorf("%s: %v", c.what, err)
					return
				}
			}
		})
	}
	for range 25 {
		r.turn(t, c.podsThen, c.vmsThen)
		r.turn(t, c.pods, c.vms)
	}
	close(done)
	busy.Wait()
	if seen := resets.Stop(); len(seen) > 0 {
		t.Errorf("there are resets: %q", seen)
	}
}

// Whoever fills the set of what the VM has accepted takes nothing from anybody: what the VM
// accepts works, and goes with its port when that changes hands. All else is known.
func TestRedirectTurnOfFullSet(t *testing.T) {
	t.Parallel()
	c := turns[0]
	r := newTrio(t, podtest.BridgeDual, prepare.Options{PodPorts: parsePorts(t, c.pods)})
	const size = 1 << 16
	var fill strings.Builder
	for n := 0; n < size; n += 1 << 12 {
		fill.WriteString("add element netdev virt-launcher-net-eth0 vm_accepted_ip { ")
		for port := range 1 << 12 {
			fmt.Fprintf(&fill, "192.0.2.99 . tcp . %d . 80,", n+port)
		}
		fill.WriteString(" }\n")
	}
	file := filepath.Join(t.TempDir(), "fill")
	if err := os.WriteFile(file, []byte(fill.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	r.pod.Run(t, "nft", "-f", file)
	all := r.talks(t, &connecting{map[string]net.Listener{}}, "beside a full set")
	for _, c := range all {
		if err := c.peerSpeaks(); err != nil {
			t.Errorf("before: %s: %v", c.what, err)
		}
	}
	r.turn(t, c.podsThen, c.vmsThen)
	for _, c := range all {
		own := netip.MustParseAddrPort(c.own.LocalAddr().String())
		goes := own.Port() == vmLoses && own.Addr().Unmap().Is4()
		if err := c.peerSpeaks(); (err != nil) != goes {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}
