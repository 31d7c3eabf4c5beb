package inside

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// TestLife follows a VM's network from the plan to restore.
func TestLife(t *testing.T) {
	eachDatapath(t, func(t *testing.T, datapath string) {
		for _, shape := range []podtest.Shape{podtest.BridgeDual, podtest.CalicoDual, podtest.AWS} {
			t.Run(string(shape), func(t *testing.T) {
				t.Parallel()
				newVM(t, podtest.NewPod(t, shape), datapath).live(t)
			})
		}
	})
}

func (v *vm) live(t *testing.T) {
	t.Helper()
	plan := v.Run(t, "plan")
	if !strings.Contains(plan, "tap-eth0") {
		t.Errorf("the plan has no tap:\n%s", plan)
	}
	if v.Datapath == redirect {
		hooked, way := strings.Contains(plan, "hook egress"), "their ports"
		if hooked {
			way = "the egress hook"
		}
		if hooked == olderThan(t, 5, 16) {
			t.Errorf("the pod's connections are known by %s", way)
		}
		t.Logf("the pod's connections are known by %s", way)
	}
	v.unchanged(t, "plan")

	v.Serve(t)
	v.plugGuest(t)
	v.lease(t)
	v.reach(t)
	v.guarded(t)
	if status := v.Run(t, "status"); !strings.Contains(status, "checksum filter  on") {
		t.Errorf("the tap has no checksum filter:\n%s", status)
	}
	if v.Datapath == redirect {
		v.podReaches(t)
		v.turn(t)
	}

	if err := v.Stop(syscall.SIGKILL); err == nil {
		t.Error("it was killed and says that it ended well")
	}
	v.reach(t)
	v.Serve(t)
	v.lease(t)
	v.reach(t)

	v.restore(t)
}

// podReaches has the pod itself ping outside, and talk to it by TCP.
func (v *vm) podReaches(t *testing.T) {
	t.Helper()
	for _, path := range v.paths() {
		v.pod.Run(t, "ping", "-c1", "-W20", path.outside.String())
		if err := podtest.Exchange(t.Context(), v.pod.NS, v.pod.Outside, path.outside, 64<<10); err != nil {
			t.Errorf("pod to %s: %v", path.outside, err)
		}
	}
}

// turn has the VM get one port alone, and then all but one: what it has opened and accepted at
// another one goes on, though its peer is the first to say something, and so does what the pod
// has opened.
func (v *vm) turn(t *testing.T) {
	t.Helper()
	guest, outside := v.guest.NS, v.pod.Outside
	type talk struct{ own, peer net.Conn }
	var all []talk
	connect := func(client, server *podtest.NS, to netip.Addr, port uint16) (ofClient, ofServer net.Conn) {
		l := server.Listen(t, netip.AddrPortFrom(to, port).String())
		defer l.Close()
		client.In(t, func() (err error) {
			ofClient, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second)
			return err
		})
		t.Cleanup(func() { ofClient.Close() })
		ofServer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ofServer.Close() })
		return ofClient, ofServer
	}
	for _, path := range v.paths() {
		own, peer := connect(guest, outside, path.outside, 7000)
		all = append(all, talk{own, peer})
		own, peer = connect(v.pod.NS, outside, path.outside, 7001)
		all = append(all, talk{own, peer})
		peer, own = connect(outside, guest, path.guest, 7000)
		all = append(all, talk{own, peer})
	}
	for _, ports := range []string{"--vm-ports=22", "--pod-ports=8080"} {
		v.Run(t, "prepare", ports)
		for _, c := range all {
			if _, err := c.peer.Write([]byte("spoken")); err != nil {
				t.Error(err)
			}
			_ = c.own.SetReadDeadline(time.Now().Add(podtest.Patience))
			if n, err := c.own.Read(make([]byte, 10)); err != nil || n != 6 {
				t.Errorf("%s: from %s to %s: %d bytes, %v", ports, c.own.RemoteAddr(), c.own.LocalAddr(), n, err)
			}
		}
	}
}

// guarded fails the test unless the port guard drops what has a MAC or an address
// that is not the guest's, and nothing else.
func (v *vm) guarded(t *testing.T) {
	t.Helper()
	const honest, forged = 10, 11 // source ports
	other := net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	var frames [][]byte
	var last netip.AddrPort
	for _, path := range v.paths() {
		frame := func(src net.HardwareAddr, from netip.AddrPort) {
			frames = append(frames, podtest.UDPFrame(src, broadcast, from, netip.AddrPortFrom(path.outside, 9), nil))
		}
		frame(other, netip.AddrPortFrom(path.guest, forged))
		frame(v.pod.MAC, netip.AddrPortFrom(path.guest.Next(), forged))
		last = netip.AddrPortFrom(path.guest, honest)
		frame(v.pod.MAC, last)
	}

	capture := podtest.StartCapture(t, v.wire.NS, v.wire.link, "udp dst port 9")
	if err := podtest.SendFrames(v.guest.NS, "eth0", frames...); err != nil {
		t.Fatal(err)
	}
	capture.Wait(fmt.Sprintf("%s.%d >", last.Addr(), last.Port())) // so it has seen all that came before
	for _, line := range capture.Stop() {
		if strings.Contains(line, fmt.Sprintf(".%d >", forged)) {
			t.Errorf("the node saw %s", line)
		}
	}
}
