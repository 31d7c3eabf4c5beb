package prepare_test

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A MAC that was the VM's, and is another host's now, as the virtual one of VRRP, or that of a
// machine within the VM that has moved, is found there at once: nothing of the pod remembers.
func TestMACThatMoves(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{"bridge", "redirect"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			p := podtest.NewPod(t, podtest.Flannel)
			var plan prepare.Plan
			p.In(t, func() (err error) {
				plan, err = prepare.ApplyOne(t.Context(), t.TempDir(), prepare.Options{Datapath: datapath, NoGuard: true}, "eth0")
				return err
			})
			vm := podtest.NewNIC(t, p.NS, plan.NIC().Tap)
			p.In(t, func() error { return plan.WaitForwarding(t.Context()) })
			seen := podtest.StartCapture(t, p.Node, "cni0", "udp port 4000")
			virtual := net.HardwareAddr{0, 0, 0x5e, 0, 1, 7}
			all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			frame := func(source, to net.HardwareAddr, word string) []byte {
				return podtest.UDPFrame(source, to, netip.AddrPortFrom(p.IPv4.Addr(), 4000), netip.MustParseAddrPort("10.244.1.200:4000"), []byte(word))
			}
			vm.Send(frame(virtual, all, "the VM's"))
			seen.Wait(virtual.String() + " > ff:")
			others := frame(virtual, all, "another host's")
			if err := podtest.SendFrames(p.Node, "cni0", others); err != nil {
				t.Fatal(err)
			}
			if vm.Receive(podtest.Patience, func(b []byte) bool { return bytes.Equal(b, others) }) == nil {
				t.Error("the VM does not hear that the MAC is another host's now")
			}
			vm.Send(frame(p.MAC, virtual, "to the other host"))
			vm.Send(frame(p.MAC, all, "the last"))
			seen.Wait(p.MAC.String() + " > ff:")
			if lines := strings.Join(seen.Stop(), "\n"); !strings.Contains(lines, p.MAC.String()+" > "+virtual.String()) {
				t.Errorf("what the VM sends to that host is lost; the node sees\n%s", lines)
			}
		})
	}
}
