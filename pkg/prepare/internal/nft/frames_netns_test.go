package nft

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// While a table is replaced no frame passes that none of them lets pass, and none is
// lost that each lets pass since it belongs to what is in a set.
func TestReplacingLosesNothing(t *testing.T) {
	t.Parallel()
	pod, peer := podtest.New(t), podtest.New(t)
	pod.IP(t, "link add v0 type veth peer name v1 netns "+peer.Path(), "link set v0 up", "addr add 192.0.2.1/24 dev v0")
	peer.IP(t, "link set v1 up", "addr add 192.0.2.2/24 dev v1")
	table := func(port uint16) Table {
		own := ports
		own.Ranges = []Range{{port, port}}
		ip, udp := EtherType.Is(IP), L4Protocol.Is(UDP)
		return Table{Family: Netdev, Name: Prefix + "v0", Sets: []Set{flows4, own}, Chains: []Chain{
			{Name: "out", Hook: "egress", Device: "v0", Rules: []Rule{
				{EtherProtocol.Is(IP), UpdateSet(flows4, 0, IPDestination, L4Protocol, DestinationPort, SourcePort)},
			}},
			{Name: "in", Hook: "ingress", Device: "v0", Rules: []Rule{
				{ip, udp, InSet(own, DestinationPort), Accept},
				{ip, udp, NotInSet(flows4, IPSource, L4Protocol, SourcePort, DestinationPort), Judged("unknown", Drop)},
			}},
		}}
	}
	inside(t, pod, func() error { return Write(Change{Table: table(1)}) })
	listen := func(ns *podtest.NS, at string) (conn *net.UDPConn) {
		inside(t, ns, func() (err error) {
			conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
			return err
		})
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	to := func(conn *net.UDPConn) netip.AddrPort { return conn.LocalAddr().(*net.UDPAddr).AddrPort() }
	opened, closed := listen(pod, "192.0.2.1:0"), listen(pod, "192.0.2.1:0")
	known, unknown := listen(peer, "192.0.2.2:0"), listen(peer, "192.0.2.2:0")
	send := func(from *net.UDPConn, to netip.AddrPort) {
		if _, err := from.WriteToUDPAddrPort([]byte("frame"), to); err != nil {
			t.Error(err)
		}
	}
	send(opened, to(known))

	replaced := make(chan error)
	go func() {
		replaced <- pod.Do(func() error {
			for i := range uint16(20) {
				now, err := Read()
				is := now[table(1).ID()]
				if err := errors.Join(err, Write(Change{Table: table(i + 2), Now: &is})); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	for n := 0; ; n++ {
		send(unknown, to(opened))
		send(unknown, to(closed))
		send(known, to(closed))
		send(known, to(opened))
		frame := make([]byte, 16)
		if err := opened.SetReadDeadline(time.Now().Add(podtest.Patience)); err != nil {
			t.Fatal(err)
		}
		if _, from, err := opened.ReadFromUDPAddrPort(frame); err != nil || from != to(known) {
			t.Fatalf("frame %d is lost, or came from %v instead: %v", n, from, err)
		}
		select {
		case err := <-replaced:
			if err != nil {
				t.Fatal(err)
			}
			if err := closed.SetReadDeadline(time.Now()); err != nil {
				t.Fatal(err)
			}
			if _, from, err := closed.ReadFromUDPAddrPort(frame); err == nil {
				t.Errorf("a frame from %v has passed", from)
			}
			return
		default:
		}
	}
}

// Rewritten addresses leave checksums right, whether the card or the kernel makes them,
// so that a pod reaches a guest, which has the pod's own address, by another one.
func TestRewrittenFramesHaveRightChecksums(t *testing.T) {
	t.Parallel()
	const (
		gateway, alias, vm    = "169.254.100.1", "169.254.100.2", "10.244.3.9"
		gateway6, alias6, vm6 = "fd00:a11::1", "fd00:a11::2", "fd00:3::9"
	)
	at, tap := mac.Addr{2, 0, 0, 0, 0, 9}, mac.Addr{2, 0, 0, 0, 0, 1}
	addr := netip.MustParseAddr
	table := Table{Family: Netdev, Name: Prefix + "eth0", Chains: []Chain{
		{Name: "to_guest", Hook: "egress", Device: "tap0", Rules: []Rule{
			{EtherProtocol.Is(IP), IPDestination.Is(addr(alias)), IPDestination.Set(addr(vm))},
			{EtherProtocol.Is(IP6), IP6Destination.Is(addr(alias6)), IP6Destination.Set(addr(vm6))},
		}},
		{Name: "from_guest", Hook: "ingress", Device: "tap0", Rules: []Rule{
			{EtherType.Is(IP), IPDestination.Is(addr(gateway)), IPSource.Set(addr(alias)), EtherDestination.Set(tap), PacketType.Set(ToHost), Accept},
			{EtherType.Is(IP6), IP6Destination.Is(addr(gateway6)), IP6Source.Set(addr(alias6)), EtherDestination.Set(tap), PacketType.Set(ToHost), Accept},
			{Drop},
		}},
	}}
	for name, start := range map[string]func(testing.TB, *podtest.NS, string, net.HardwareAddr) *podtest.Guest{
		"with offloads": podtest.NewGuest, "without": podtest.NewPlainGuest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewTapNS(t)
			pod.IP(t, "link set tap0 address "+tap.String(), "addr add "+gateway+"/30 dev tap0", "addr add "+gateway6+"/64 dev tap0 nodad",
				"neigh add "+alias+" lladdr "+at.String()+" dev tap0", "neigh add "+alias6+" lladdr "+at.String()+" dev tap0")
			guest := start(t, pod, "tap0", at[:])
			for _, gw := range []string{gateway, gateway6} {
				guest.IP(t, "route add "+gw+" dev eth0", "neigh add "+gw+" lladdr 02:00:00:00:00:07 dev eth0")
			}
			guest.IP(t, "addr add "+vm+"/24 dev eth0", "addr add "+vm6+"/64 dev eth0 nodad")
			if err := errors.Join(podtest.WaitSettled(t.Context(), pod), podtest.WaitSettled(t.Context(), guest.NS)); err != nil {
				t.Fatal(err)
			}
			inside(t, pod, func() error { return Write(Change{Table: table}) })
			for to, here := range map[string]string{alias: vm, alias6: vm6} {
				pod.Run(t, "ping", "-n", "-c", "1", "-W", "5", to)
				echoes(t, pod, guest.NS, to, here)
			}
		})
	}
}

// echoes has a server at an address of a guest send back what a client in a pod sends to
// another, by TCP and by UDP.
func echoes(t *testing.T, pod, guest *podtest.NS, to, here string) {
	t.Helper()
	listener := guest.Listen(t, net.JoinHostPort(here, "0"))
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	var datagrams net.PacketConn
	inside(t, guest, func() (err error) {
		datagrams, err = net.ListenPacket("udp", net.JoinHostPort(here, port))
		return err
	})
	defer datagrams.Close()
	go func() {
		b := make([]byte, 2048)
		if n, from, err := datagrams.ReadFrom(b); err == nil {
			_, _ = datagrams.WriteTo(b[:n], from)
		}
	}()
	for network, data := range map[string][]byte{"tcp": bytes.Repeat([]byte("0123456"), 30000), "udp": []byte("datagram")} {
		var conn net.Conn
		inside(t, pod, func() (err error) {
			conn, err = net.DialTimeout(network, net.JoinHostPort(to, port), podtest.Patience)
			return err
		})
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(podtest.Patience)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write(data) }()
		got := make([]byte, len(data))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s to %s: %v, or other bytes came back", network, to, err)
		}
	}
}
