package prepare_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A node with br_netfilter translates on its bridge what pod or VM send to a Service
// that leads to themselves, and sends it back with their own MAC: it arrives. What they
// send to themselves does not, and not by a router either.
func TestRedirectReturned(t *testing.T) {
	t.Parallel()
	var o prepare.Options
	if err := o.PodPorts.UnmarshalText([]byte("8080")); err != nil {
		t.Fatal(err)
	}
	r := newTrio(t, podtest.BridgeDual, o)
	mac := r.shape.MAC
	for _, a := range r.families() {
		for _, to := range []struct {
			host
			port uint16
		}{{r.pod, 8080}, {r.vm, 80}} {
			packets := to.listenUDP(t, "udp", netip.AddrPortFrom(a.own, to.port).String())
			frame := func(source net.HardwareAddr, from netip.Addr, text string) []byte {
				return podtest.UDPFrame(source, mac, netip.AddrPortFrom(from, 5000), netip.AddrPortFrom(a.own, to.port), []byte(text))
			}
			frames := [][]byte{frame(mac, a.outside, "returned")}
			if to.name == "pod" {
				router := net.HardwareAddr{2, 0, 0, 0, 0, 1}
				frames = [][]byte{frame(mac, a.own, "of the pod's own"), frame(router, a.own, "by a router"), frames[0]}
			}
			if err := podtest.SendFrames(r.shape.Node, r.shape.NodeLink, frames...); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			n, from, err := packets.ReadFrom(b)
			if err != nil || string(b[:n]) != "returned" {
				t.Errorf("%s got %q from %v: %v", to.name, b[:n], from, err)
			}
		}
	}
}

// listenUDP listens in the namespace, as long as a test waits.
func (h host) listenUDP(t *testing.T, network, at string) (packets net.PacketConn) {
	t.Helper()
	h.In(t, func() (err error) {
		packets, err = net.ListenPacket(network, at)
		return err
	})
	if err := packets.SetReadDeadline(time.Now().Add(podtest.Patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { packets.Close() })
	return packets
}
