package prestart_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// nodeIPv6 is an address of the node that is not the pod's gateway.
var nodeIPv6 = netip.MustParseAddr("2001:db8::1")

// A guest with the pod's IPv6 sends and gets segments that fill the MTU, hears
// of a smaller one on the way, and looks for duplicates of its addresses where
// others hear it.
func TestGuestReachesIPv6(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			neighbor := pod.NewNeighbor(t)
			tap := run(t, newHook(t, pod)).Interfaces()[0].Tap
			if err := podtest.WaitSettled(t.Context(), pod.Node); err != nil {
				t.Fatal(err)
			}
			capture := podtest.StartCapture(t, pod.Node, pod.NodeLink, "ip6")
			guest := podtest.NewPlainGuest(t, pod.NS, tap, pod.MAC)
			address := pod.IPv6.Addr()
			solicitIPv6(t, guest)
			capture.Wait("> ff02::16: HBH ICMP6, multicast listener report v2")
			capture.Wait("who has fe80::")
			capture.Wait(fmt.Sprintf(":: > %s: ICMP6, neighbor solicitation, who has %s,", group(address).ip, address))
			// In fragments, both ways.
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "-s", "4000", nodeIPv6.String())
			pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", "-s", "4000", address.String())

			full := pod.MTU + podtest.EthernetLen
			segments := podtest.StartCapture(t, pod.NS, tap, fmt.Sprintf("ip6 and tcp and greater %d", full))
			talk(t, guest, address, host{"node", pod.Node, nodeIPv6},
				host{"other pod", neighbor.NS, neighbor.IPv6.Addr()}, host{"outside", pod.Outside, podtest.OutsideIPv6})
			segments.Wait(fmt.Sprintf("length %d: %s", full, address))
			segments.Wait(fmt.Sprintf("length %d: %s", full, neighbor.IPv6.Addr()))
			for _, frame := range segments.Frames() {
				if len(frame) != full {
					t.Errorf("a frame has %d bytes, want at most %d", len(frame), full)
				}
			}

			pod.Node.IP(t, "link set uplink0 mtu 1280")
			talk(t, guest, address, host{"outside", pod.Outside, podtest.OutsideIPv6})
			if route := guest.Run(t, "ip", "-6", "route", "get", podtest.OutsideIPv6.String()); !strings.Contains(route, "mtu 1280") {
				t.Errorf("the guest has not heard that its packets are too big: %q", route)
			}
		})
	}
}

// Without IPv6 for the VM nothing of it passes, nobody speaks it on the tap, and
// IPv4 is as ever.
func TestIPv6Off(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newHostilePod(t, shape, prestart.Hook{Network: prepare.Options{NoIPv6: true}})
			own, other := party{p.pod.MAC, p.pod.IPv6.Addr()}, party{linkMAC(t, p.pod.Node, p.pod.NodeLink), stranger6.ip}
			linkLocal, gateway := party{own.mac, netip.MustParseAddr("fe80::1234")}, party{other.mac, p.pod.Gateway}
			onTap := podtest.StartCapture(t, p.pod.NS, "tap-"+p.pod.Interface, "ip6")

			l := list{}
			for _, from := range []party{own, linkLocal} {
				l.silent(from, other)
			}
			l.pass("IPv4", udp(p.vm, gateway, anyPort, anyPort, "IPv4"))
			p.judgeSent(t, l.tries, udp(p.vm, gateway, anyPort, 40001, "marker"))

			l = list{}
			l.silent(other, own)
			if podtest.Datapath(t) == redirect { // what is to none of the VM's addresses is the pod's
				for i, try := range l.tries {
					if bytes.Equal(try.frame[:6], own.mac) {
						l.tries[i].reason = ""
					}
				}
			}
			l.pass("IPv4", udp(gateway, p.vm, anyPort, anyPort, "IPv4"))
			p.judgeReceived(t, l.tries, udp(gateway, p.vm, anyPort, 40001, "marker"))

			for _, frame := range onTap.Frames() {
				if !bytes.Equal(frame[6:12], own.mac) {
					t.Errorf("somebody speaks IPv6 with the VM: %x", frame)
				}
			}
			if err := p.tap.Close(); err != nil {
				t.Fatal(err)
			}
			guest := podtest.NewGuest(t, p.pod.NS, "tap-"+p.pod.Interface, p.pod.MAC)
			if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != p.pod.IPv4.Addr().String() {
				t.Fatalf("lease %v, error %v", lease, err)
			}
			talk(t, guest, p.pod.IPv4.Addr(), host{"outside", p.pod.Outside, podtest.OutsideIP})
		})
	}
}

// silent adds IPv6 of all kinds that goes nowhere.
func (l *list) silent(from, to party) {
	ping := icmp6From(from, to, 128, 64, []byte{0, 7, 0, 1}, make([]byte, 56))
	for name, frame := range map[string][]byte{
		"datagram": udp(from, to, anyPort, anyPort, "silent"), "ping": ping, "ping behind options": behind(ping, hopByHop),
		"fragment": fragment6(ping, 32, 64, isICMP6), "TCP": packet6(from, to, isTCP, 64, make([]byte, 20)),
		"router solicitation": icmp6(from.mac, solicitRouter, "off"), "router advertisement": icmp6(from.mac, advertiseRouter, "off"),
		"solicitation":            neighbor(from, group(to.ip), solicit, to.ip, option(sourceMAC, from.mac)),
		"advertisement":           neighbor(from, allNodes, advertise, from.ip, option(targetMAC, from.mac)),
		"detection of duplicates": neighbor(party{from.mac, nobody6}, group(from.ip), solicit, from.ip),
		"multicast report":        behind(icmp6From(party{from.mac, nobody6}, reporters, 143, 1, make([]byte, 4)), hopByHop),
		"Solicit":                 udp(from, allDHCP, client6, server6, "solicit"), "Advertise": udp(from, to, server6, client6, "advertise"),
	} {
		l.stop("no-ipv6", name, frame)
	}
}

// newIPv6Pod is a pod that has no IPv4.
func newIPv6Pod(t *testing.T, shape podtest.Shape) *podtest.Pod {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	pod.Run(t, "ip", "-4", "addr", "flush", "dev", pod.Interface)
	pod.Run(t, "ip", "-4", "route", "flush", "table", "main")
	return pod
}

// A pod with IPv6 alone gives its VM that.
func TestPodWithoutIPv4(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := newIPv6Pod(t, shape)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			session := run(t, h)
			network := session.Interfaces()[0]
			if len(network.Addresses) != 1 || network.Addresses[0] != pod.IPv6 {
				t.Errorf("the VM's addresses are %v, want %s", network.Addresses, pod.IPv6)
			}
			reports, err := h.Check(t.Context())
			if err != nil || len(reports) != 1 || reports[0].Address6 != pod.IPv6.Addr() || reports[0].Offered != 0 {
				t.Errorf("check: %+v, %v", reports, err)
			}
			if err := podtest.WaitSettled(t.Context(), pod.Node); err != nil {
				t.Fatal(err)
			}
			guest := podtest.NewGuest(t, pod.NS, network.Tap, pod.MAC)
			solicitIPv6(t, guest)
			talk(t, guest, pod.IPv6.Addr(), host{"outside", pod.Outside, podtest.OutsideIPv6})
			if _, err := asker(h).Wait(t.Context(), control.ForLease); err != nil {
				t.Fatal(err)
			}
			status, err := statusOf(t, h)
			if err != nil {
				t.Fatal(err)
			}
			if l := status.Interfaces[0]; l.Lease != nil || l.Lease6 == nil || l.Lease6.State != lease.Bound {
				t.Errorf("leases are %+v, %+v", l.Lease, l.Lease6)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.Force = true // the guest has the tap still
			if _, err := h.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}
