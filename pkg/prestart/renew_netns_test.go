package prestart_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A guest renews its lease by a datagram that its own kernel sends to the server
// identifier: on whatever network, and again after the server was started
// otherwise.
func TestGuestRenews(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		shape podtest.Shape
		pod   []string // ip(8) lines in it
	}{
		{name: "flannel", shape: podtest.Flannel},
		{name: "kindnet", shape: podtest.Kindnet},
		{name: "calico", shape: podtest.Calico},
		{name: "cilium", shape: podtest.Cilium},
		{name: "gke", shape: podtest.GKE},
		{name: "aws", shape: podtest.AWS},
		{name: "azure", shape: podtest.Azure},
		{name: "two families", shape: podtest.BridgeDual},
		{name: "no gateway", shape: podtest.BridgeCNI, pod: []string{"route del default"}},
		{name: "pair", shape: podtest.BridgeCNI, pod: []string{"addr flush dev eth0", "addr add 10.22.0.8/31 dev eth0"}},
		{name: "alone", shape: podtest.BridgeCNI, pod: []string{"addr flush dev eth0", "addr add 10.22.0.7/32 dev eth0"}},
		{name: "a gateway in no network", shape: podtest.BridgeCNI, pod: []string{
			"addr flush dev eth0", "addr add 10.22.0.7/32 dev eth0", "route add default via 10.22.0.1 dev eth0 onlink",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, c.shape)
			pod.IP(t, c.pod...)
			h := newHook(t, pod)
			h.SkipCheck = true
			h.Lease.Duration = time.Hour
			session := run(t, h)
			network := session.Interfaces()[0]
			guest := podtest.NewGuest(t, pod.NS, network.Tap, pod.MAC)
			lease, err := guest.Udhcpc(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			address, server := netip.MustParseAddr(lease["ip"]), netip.MustParseAddr(lease["serverid"])
			renew(t, guest, address, server)

			if err := session.Close(context.WithoutCancel(t.Context())); err != nil {
				t.Fatal(err)
			}
			h.Lease.DefaultRoute, h.Lease.Duration = prestart.NoDefaultRoute, 0
			if session, err = h.Serve(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = session.Close(context.Background()) })
			guest.IP(t, "neigh flush dev eth0")
			renew(t, guest, address, server)
		})
	}
}

// renew has the guest's kernel carry a renewal to the server, and waits for the
// answer. That the kernel has no way there, or finds nobody, is an error.
func renew(t *testing.T, guest *podtest.Guest, address, server netip.Addr) {
	t.Helper()
	err := guest.Do(func() error {
		conn, err := net.DialUDP("udp4",
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, 68)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 67)))
		if err != nil {
			return err
		}
		defer conn.Close()
		request, err := dhcpv4.New(
			dhcpv4.WithHwAddr(guest.MAC), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest), dhcpv4.WithClientIP(address.AsSlice()))
		if err != nil {
			return err
		}
		if _, err := conn.Write(request.ToBytes()); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(podtest.Patience)); err != nil {
			return err
		}
		answer := make([]byte, 1500)
		n, err := conn.Read(answer)
		if err != nil {
			return err
		}
		reply, err := dhcpv4.FromBytes(answer[:n])
		if err == nil && (reply.MessageType() != dhcpv4.MessageTypeAck || !reply.ServerIdentifier().Equal(server.AsSlice())) {
			err = fmt.Errorf("the answer is %s", reply.Summary())
		}
		return err
	})
	if err != nil {
		t.Errorf("renew %s at %s: %v", address, server, err)
	}
}
