package ra

import (
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// sourceOption is the guest's source link-layer address option.
var sourceOption = append([]byte{optSourceMAC, 1}, guestMAC...)

// solicit is a router solicitation of the guest as a frame.
func solicit(from netip.Addr, options []byte, change ...func(*packet.Packet6, []byte)) []byte {
	b := append(make([]byte, packet.Head6Len+solicitationLen), options...)
	b[packet.Head6Len] = typeSolicitation
	allRouters := netip.IPv6LinkLocalAllRouters()
	p := packet.Packet6{
		SrcMAC: packet.MACOf(guestMAC), DstMAC: packet.MulticastMAC(allRouters), Src: from, Dst: allRouters,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: hopLimit,
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
		{name: "from nobody with its address", frame: solicit(nobody, sourceOption), want: Malformed},
		{name: "hop limit", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.HopLimit = 254 }), want: BadHopLimit},
		{name: "code", frame: solicit(guestLocal, nil, func(_ *packet.Packet6, b []byte) { b[1] = 1 }), want: Malformed},
		{name: "type", frame: solicit(guestLocal, nil, func(_ *packet.Packet6, b []byte) { b[0] = typeAdvertisement }), want: Malformed},
		{name: "option of no length", frame: solicit(guestLocal, make([]byte, 8)), want: Malformed},
		{name: "option too long", frame: solicit(guestLocal, []byte{1, 2, 0, 0, 0, 0, 0, 0}), want: Malformed},
		{name: "half an option", frame: solicit(guestLocal, []byte{1}), want: Malformed},
		{name: "checksum", frame: damaged(solicit(guestLocal, nil)), want: BadChecksum},
		{name: "checksum pending", frame: damaged(solicit(guestLocal, nil)), pending: true},
		{name: "other MAC", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.SrcMAC = packet.MAC{2} }), want: OtherSource},
		{name: "multicast source", frame: solicit(allNodes, nil), want: OtherSource},
		{name: "loopback", frame: solicit(netip.IPv6Loopback(), nil), want: OtherSource},
		{name: "UDP", frame: solicit(guestLocal, nil, func(p *packet.Packet6, _ []byte) { p.Protocol = unix.IPPROTO_UDP }), want: BadFrame},
		{name: "cut", frame: solicit(guestLocal, nil)[:packet.Head6Len+6], want: BadFrame},
		{name: "empty", want: BadFrame},
	} {
		if _, err := parseSolicitation(c.frame, packet.MACOf(guestMAC), c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func FuzzSolicitation(f *testing.F) {
	f.Add(solicit(guestLocal, sourceOption), false)
	f.Add(solicit(netip.IPv6Unspecified(), nil), true)
	f.Add(solicit(guestLocal, []byte{1, 0}), false)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		from, err := parseSolicitation(b, packet.MACOf(guestMAC), pending)
		if err != nil {
			if _, ok := errors.AsType[Silence](err); !ok {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		if !from.Is6() || from.IsMulticast() {
			t.Fatalf("to be answered: %v", from)
		}
	})
}
