package ra

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// sourceOption is the guest's source link-layer address option.
var sourceOption = append([]byte{1, 1}, guestMAC[:]...)

// solicit is a router solicitation of the guest as a frame.
func solicit(from netip.Addr, options []byte, change ...func(*packet.Packet6, []byte)) []byte {
	b := append(make([]byte, packet.Head6Len+8), options...)
	b[packet.Head6Len] = 133
	allRouters := netip.IPv6LinkLocalAllRouters()
	p := packet.Packet6{
		SrcMAC: guestMAC, DstMAC: packet.MulticastMAC(allRouters), Src: from, Dst: allRouters,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: packet.HopLimitND,
	}
	for _, f := range change {
		f(&p, b[packet.Head6Len:])
	}
	packet.Seal6(b, p)
	return b
}

func damaged(b []byte) []byte {
	b[packet.Head6Len+4] ^= 1
	return b
}

func TestParseSolicitation(t *testing.T) {
	nobody := netip.IPv6Unspecified()
	for _, c := range []struct {
		name    string
		frame   []byte
		pending bool
		want    error
	}{
		{name: "plain", frame: solicit(guestLocal, nil)},
		{name: "with its address", frame: solicit(guestLocal, sourceOption)},
		{name: "from nobody", frame: solicit(nobody, nil)},
		{name: "unknown option", frame: solicit(nobody, []byte{200, 1, 0, 0, 0, 0, 0, 0})},
		{name: "global source", frame: solicit(netip.MustParseAddr("fd00::7"), nil)},
		{name: "from nobody with its address", frame: solicit(nobody, sourceOption), want: lease.DropMalformed},
		{name: "hop limit", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.HopLimit = 254 }), want: lease.DropBadHopLimit},
		{name: "code", frame: solicit(guestLocal, nil, func(_ *packet.Packet6, b []byte) { b[1] = 1 }), want: lease.DropMalformed},
		{name: "type", frame: solicit(guestLocal, nil, func(_ *packet.Packet6, b []byte) { b[0] = 134 }), want: lease.DropMalformed},
		{name: "option of no length", frame: solicit(guestLocal, make([]byte, 8)), want: lease.DropMalformed},
		{name: "option too long", frame: solicit(guestLocal, []byte{1, 2, 0, 0, 0, 0, 0, 0}), want: lease.DropMalformed},
		{name: "half an option", frame: solicit(guestLocal, []byte{1}), want: lease.DropMalformed},
		{name: "checksum", frame: damaged(solicit(guestLocal, nil)), want: packet.ErrBadChecksum},
		{name: "checksum pending", frame: damaged(solicit(guestLocal, nil)), pending: true},
		{name: "other MAC", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.SrcMAC = mac.Addr{2} }), want: lease.DropOtherSource},
		{name: "multicast source", frame: solicit(allNodes, nil), want: lease.DropOtherSource},
		{name: "loopback", frame: solicit(netip.IPv6Loopback(), nil), want: lease.DropOtherSource},
		{name: "UDP", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.Protocol = unix.IPPROTO_UDP }), want: packet.ErrBadFrame},
		{name: "cut", frame: solicit(guestLocal, nil)[:packet.Head6Len+6], want: packet.ErrBadFrame},
		{name: "empty", want: packet.ErrBadFrame},
	} {
		if _, err := parseSolicitation(c.frame, guestMAC, c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// What a check asks is what the server takes for a guest's question.
func TestProbe(t *testing.T) {
	from, err := parseSolicitation(probe.RouterSolicitation(guestMAC, guestLocal), guestMAC, false)
	if err != nil || from != guestLocal {
		t.Errorf("from %v, error %v", from, err)
	}
	got, err := probe.ParseRouterAdvertisement(frameTo(t, calico()))
	if err != nil || got != router {
		t.Errorf("router %v, error %v", got, err)
	}
}

// frameTo is the first message of an advertisement as it goes out.
func frameTo(t *testing.T, a Advertisement) []byte {
	t.Helper()
	messages, _, err := a.encode()
	if err != nil {
		t.Fatal(err)
	}
	return frameOf(messages[0])
}

func FuzzSolicitation(f *testing.F) {
	f.Add(solicit(guestLocal, sourceOption), false)
	f.Add(solicit(netip.IPv6Unspecified(), nil), true)
	f.Add(solicit(guestLocal, []byte{1, 0}), false)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		from, err := parseSolicitation(b, guestMAC, pending)
		if err != nil {
			if _, ok := errors.AsType[lease.DropReason](err); !ok && !errors.Is(err, packet.ErrBadFrame) && !errors.Is(err, packet.ErrBadChecksum) {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		if !from.Is6() || from.IsMulticast() {
			t.Fatalf("to be answered: %v", from)
		}
	})
}
