package prestart_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// volume is what is sent each way: more than fits any buffer at once.
const volume = 256 << 10

// host is somebody to talk with.
type host struct {
	name string
	ns   *podtest.NS
	ip   netip.Addr
}

// hosts are those around a pod: its node, another pod there, and a host beyond.
func hosts(pod, neighbor *podtest.Pod) []host {
	return []host{
		{"node", pod.Node, netip.MustParseAddr("192.0.2.1")},
		{"other pod", neighbor.NS, neighbor.IPv4.Addr()},
		{"outside", pod.Outside, podtest.OutsideIP},
	}
}

// talk has guest and host each open a TCP connection to the other.
func talk(t *testing.T, guest *podtest.Guest, ip netip.Addr, others ...host) {
	t.Helper()
	for _, other := range others {
		if err := podtest.Exchange(t.Context(), guest.NS, other.ns, other.ip, volume); err != nil {
			t.Errorf("guest to %s: %v", other.name, err)
		}
		if err := podtest.Exchange(t.Context(), other.ns, guest.NS, ip, volume); err != nil {
			t.Errorf("%s to guest: %v", other.name, err)
		}
	}
}

// A guest that knows only what DHCP told it reaches everybody whom the pod
// reached, and is reached at the pod's address, with segments that fill the
// MTU and no larger ones.
func TestGuestReaches(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{
		podtest.Flannel, podtest.Kindnet, podtest.KindnetDual, podtest.Calico, podtest.CalicoDual, podtest.Cilium,
		podtest.GKE, podtest.GKEClassE, podtest.AWS, podtest.Azure, podtest.BridgeCNI,
	} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			neighbor := pod.NewNeighbor(t)
			session := run(t, newHook(t, pod))
			tap := session.Interfaces()[0].Tap
			guest := podtest.NewPlainGuest(t, pod.NS, tap, pod.MAC)
			lease, err := guest.Udhcpc(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			talk(t, guest, pod.IPv4.Addr(), hosts(pod, neighbor)...)
			if neigh := guest.Run(t, "ip", "neigh", "show", pod.Gateway.String()); !strings.Contains(neigh, "lladdr") {
				t.Errorf("the gateway is not resolved: %q", neigh)
			}
			if owner := pod.Node.Run(t, "ip", "addr", "show", "to", pod.Gateway.String()); owner != "" {
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.Gateway.String())
			}
			mtu, err := strconv.Atoi(lease["mtu"])
			if err != nil {
				t.Fatal(err)
			}
			full := mtu + podtest.EthernetLen
			capture := podtest.StartCapture(t, pod.NS, tap, fmt.Sprintf("tcp and greater %d", full))
			talk(t, guest, pod.IPv4.Addr(), host{"other pod", neighbor.NS, neighbor.IPv4.Addr()})
			from := fmt.Sprintf("length %d: %s", full, pod.IPv4.Addr())
			capture.Wait(from)
			capture.Wait(fmt.Sprintf("length %d: %s", full, neighbor.IPv4.Addr()))
			for _, frame := range capture.Frames() {
				if len(frame) != full || !bytes.Equal(frame[12:14], []byte{8, 0}) {
					t.Errorf("a frame has %d bytes, want at most %d", len(frame), full)
				}
			}
		})
	}
}
