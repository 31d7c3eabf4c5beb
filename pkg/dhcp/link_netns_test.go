package dhcp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// TestOverSwitch: the server hears the guest before the switch does, and does
// not take the port's leaving for its deletion.
func TestOverSwitch(t *testing.T) {
	tap := newTap(t)
	ip(t, "link add br0 "+podtest.Switch)
	ip(t, "link set br0 up")
	ip(t, "link set tap0 master br0 up")
	serveOn(t, tap, testLease())
	guest := openGuest(t, tap)
	guest.dora()
	ip(t, "link set tap0 nomaster")
	guest.dora()
	ip(t, "link set tap0 master br0")
	guest.dora()
}

func TestChecksums(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)

	damaged := guestFrame(discover())
	damaged[packet.UDP4Len-1] ^= 0xff
	guest.send(damaged)
	await(t, s, "bad checksum", func(s lease.Status) bool { return s.Dropped[lease.DropBadChecksum] == 1 })
	if err := guest.trySend(damaged, true); err != nil {
		t.Fatal(err)
	}
	if got, _ := guest.receive(patience); got == nil {
		t.Fatal("no answer to a guest that leaves checksums to its NIC")
	}
}

// TestFilter: nothing but the guest's DHCP is even looked at.
func TestFilter(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)

	plain := guestFrame(discover())
	change := func(f func(b []byte)) []byte {
		b := bytes.Clone(plain)
		f(b)
		return b
	}
	tagged := append(bytes.Clone(plain[:12]), append([]byte{0x81, 0, 0, 5}, plain[12:]...)...)
	for _, frame := range [][]byte{
		tagged,
		change(func(b []byte) { b[packet.EthernetLen+9] = 6 }),
		change(func(b []byte) { b[packet.EthernetLen+6] = 0x20 }),
		change(func(b []byte) { b[packet.EthernetLen+7] = 1 }),
		change(func(b []byte) { b[12], b[13] = 8, 6 }),
		frameFrom(discover(), guestMAC, "0.0.0.0:68", packet.Broadcast, "255.255.255.255:68"),
	} {
		guest.send(frame)
	}
	// With IP options the port is elsewhere.
	const udp = packet.UDP4Len - 8
	long := append(bytes.Clone(plain[:udp]), append([]byte{1, 1, 1, 1}, plain[udp:]...)...)
	ip4 := long[packet.EthernetLen:]
	ip4[0]++
	ip4[3] += 4
	sum := uint32(^binary.BigEndian.Uint16(ip4[10:])) + 0x0100 + 4 + 2*0x0101 // what is more in the header
	binary.BigEndian.PutUint16(ip4[10:], ^uint16(sum>>16+sum))
	guest.send(long)
	if got, _ := guest.receive(patience); got == nil {
		t.Fatal("no answer to a header with options")
	}
	status := await(t, s, "answered", func(s lease.Status) bool { return s.Sent["OFFER"] == 1 })
	if status.Received["DISCOVER"] != 1 || len(status.Dropped) != 0 {
		t.Errorf("received %v, dropped %v", status.Received, status.Dropped)
	}

	guest.send(frameFrom(discover(), mac.Addr{2, 9}, "0.0.0.0:68", packet.Broadcast, "255.255.255.255:67"))
	guest.send(guestFrame(with(discover(), func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 9, 0, 0, 0, 0} })))
	guest.send(append(bytes.Clone(plain), make([]byte, packet.MaxFrame)...))
	nonsense := append(bytes.Clone(plain[:packet.UDP4Len]), "nonsense"...)
	packet.SealUDP4(nonsense, packet.UDP{
		SrcMAC: guestMAC, DstMAC: packet.Broadcast,
		Src: netip.MustParseAddrPort("0.0.0.0:68"), Dst: netip.MustParseAddrPort("255.255.255.255:67"),
	})
	guest.send(nonsense)
	await(t, s, "dropped", func(s lease.Status) bool {
		return s.Dropped[lease.DropOtherSource] == 1 && s.Dropped[lease.DropOtherClient] == 1 && s.Dropped[lease.DropBadFrame] == 1 && s.Dropped[lease.DropMalformed] == 1
	})
	if got, _ := guest.receive(50 * time.Millisecond); got != nil {
		t.Errorf("answered: %v", got)
	}
}

// TestOwnFramesIgnored: what goes out to the guest is no request of its.
func TestOwnFramesIgnored(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	other := newServer(t, tap, testLease())
	if err := other.Conn.Write(guestFrame(discover())); err != nil {
		t.Fatal(err)
	}
	guest.dora()
	if got := s.Status(); got.Received["DISCOVER"] != 1 {
		t.Errorf("received %v", got.Received)
	}
}

// TestLinkFlap: down and up, guest gone and back, each without a word to the server.
func TestLinkFlap(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	for range 3 {
		guest := openGuest(t, tap)
		guest.dora()
		ip(t, "link set tap0 down")
		if err := guest.trySend(guestFrame(discover()), false); err == nil {
			t.Fatal("a tap that is down takes a frame")
		}
		ip(t, "link set tap0 up")
		guest.dora()
		guest.leave()
	}
	if got := s.Status(); got.LastError != (lease.Failure{}) || !got.Serving {
		t.Errorf("status is %+v", got)
	}
}

// TestUnsent: an answer that the link does not take is counted, and told.
func TestUnsent(t *testing.T) {
	tap := newTap(t)
	s := newServer(t, tap, testLease())
	// The guest has asked, then the link went down.
	s.Drop(s.handle(guestFrame(discover()), false))
	got := s.Status()
	if got.Dropped[lease.DropUnsent] != 1 || got.LastError.Error == "" || got.State != lease.None {
		t.Errorf("status is %+v", got)
	}
}

func TestInterfaceGone(t *testing.T) {
	for _, c := range []struct{ name, before string }{
		{"up", "link set tap0 up"},
		{"down", "link set tap0 down"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tap := newTap(t)
			ip(t, "link add other type veth peer name peer")
			s := newServer(t, tap, testLease())
			done := make(chan error, 1)
			go func() { done <- s.Serve(context.Background()) }()
			await(t, s, "serving", func(s lease.Status) bool { return s.Serving })
			ip(t, c.before)
			ip(t, "link del other") // none of our business
			if got := s.Status(); !got.Serving {
				t.Fatal("ended with another interface")
			}
			ip(t, "link del tap0")
			select {
			case err := <-done:
				if !errors.Is(err, lease.ErrGone) {
					t.Errorf("got %v", err)
				}
			case <-time.After(patience):
				t.Fatal("Serve does not end with its interface")
			}
			if got := s.Status(); got.Serving || got.LastError.Error == "" {
				t.Errorf("status is %+v", got)
			}
			if err := s.Serve(context.Background()); !errors.Is(err, lease.ErrGone) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestNewServerErrors(t *testing.T) {
	newTap(t)
	for _, name := range []string{"nothing", "a-name-that-is-too-long", "", "lo"} {
		if s, err := NewServer(name, testLease(), nil); err == nil {
			t.Errorf("%q: no error", name)
			_ = s.Close()
		}
	}
}

// TestSourceAddressOfTheGuest: a tap may have been given the address of the guest.
func TestSourceAddressOfTheGuest(t *testing.T) {
	tap := newTap(t)
	ip(t, "link set tap0 address "+guestMAC.String())
	serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	if _, d := openGuest(t, tap).ask(discover()); d.SrcMAC == guestMAC {
		t.Error("the answer seems to come from the guest itself, which will not take it")
	}
}
