package probe

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var (
	guestMAC   = mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	guestLocal = guestMAC.LinkLocal()
	routerMAC  = mac.Addr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	router     = routerMAC.LinkLocal()
)

// answer is an advertisement of the router to the guest as a frame.
func answer(message []byte, change ...func(*packet.Packet6, []byte)) []byte {
	b := append(make([]byte, packet.Head6Len), message...)
	p := packet.Packet6{
		SrcMAC: routerMAC, DstMAC: guestMAC, Src: router, Dst: guestLocal,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: packet.HopLimitND,
	}
	for _, f := range change {
		f(&p, b[packet.Head6Len:])
	}
	packet.Seal6(b, p)
	return b
}

// routerSays is the router's advertisement, with its MAC and an MTU.
func routerSays() []byte {
	m := append([]byte{packet.RouterAdvertisement, 0, 0, 0, 64, 0xc0, 0xff, 0xff}, make([]byte, 8)...)
	m = append(append(m, packet.OptionSourceMAC, 1), routerMAC[:]...)
	return append(m, 5, 1, 0, 0, 0, 0, 0x05, 0xaa)
}

// neighborSays is the router's neighbour advertisement with these options.
func neighborSays(options ...byte) []byte {
	return slices.Concat([]byte{packet.NeighborAdvertisement, 0, 0, 0, 0xe0, 0, 0, 0}, router.AsSlice(), options)
}

var targetOption = append([]byte{packet.OptionTargetMAC, 1}, routerMAC[:]...)

func damaged(b []byte) []byte {
	b[packet.Head6Len+4] ^= 1
	return b
}

func TestNeighborSolicitation(t *testing.T) {
	p, err := packet.Parse6(NeighborSolicitation(guestMAC, guestLocal, router), unix.IPPROTO_ICMPV6, false)
	if err != nil || p.SrcMAC != guestMAC || p.Src != guestLocal || p.Dst != netip.MustParseAddr("ff02::1:ffee:eeee") ||
		p.DstMAC != (mac.Addr{0x33, 0x33, 0xff, 0xee, 0xee, 0xee}) || p.HopLimit != 255 {
		t.Fatalf("got %+v, %v", p, err)
	}
	want := slices.Concat([]byte{135, 0, p.Payload[2], p.Payload[3], 0, 0, 0, 0}, router.AsSlice(), []byte{1, 1}, guestMAC[:])
	if !slices.Equal(p.Payload, want) {
		t.Errorf("got %x, want %x", p.Payload, want)
	}
}

func TestParseAdvertisements(t *testing.T) {
	says := routerSays()
	for _, c := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{name: "plain", frame: answer(says), ok: true},
		{name: "hop limit", frame: answer(says, func(p *packet.Packet6, _ []byte) { p.HopLimit = 64 })},
		{name: "from a global address", frame: answer(says, func(p *packet.Packet6, _ []byte) { p.Src = netip.MustParseAddr("fd00::1") })},
		{name: "code", frame: answer(says, func(_ *packet.Packet6, b []byte) { b[1] = 1 })},
		{name: "of a neighbour", frame: answer(neighborSays(targetOption...))},
		{name: "option of no length", frame: answer(append(slices.Clone(says[:routerAdvertisementLen]), 1, 0, 0, 0, 0, 0, 0, 0))},
		{name: "cut", frame: answer(says[:routerAdvertisementLen-1])},
		{name: "checksum", frame: damaged(answer(says))},
		{name: "empty"},
	} {
		got, err := ParseRouterAdvertisement(c.frame)
		if (err == nil) != c.ok || c.ok && got != router || !c.ok && !errors.Is(err, ErrNoAnswer) {
			t.Errorf("router's %s: got %v, error %v", c.name, got, err)
		}
	}
	for _, c := range []struct {
		name  string
		frame []byte
		ok    bool
	}{
		{name: "plain", frame: answer(neighborSays(targetOption...)), ok: true},
		{name: "with a nonce", frame: answer(neighborSays(append([]byte{14, 1, 1, 2, 3, 4, 5, 6}, targetOption...)...)), ok: true},
		{name: "without its MAC", frame: answer(neighborSays())},
		{name: "with a group's MAC", frame: answer(neighborSays(packet.OptionTargetMAC, 1, 0x33, 0x33, 0, 0, 0, 1))},
		{name: "of a router", frame: answer(says)},
		{name: "cut", frame: answer(neighborSays()[:neighborLen-1])},
		{name: "half an option", frame: answer(neighborSays(packet.OptionTargetMAC))},
		{name: "checksum", frame: damaged(answer(neighborSays(targetOption...)))},
		{name: "empty"},
	} {
		target, at, err := ParseNeighborAdvertisement(c.frame)
		if (err == nil) != c.ok || c.ok && (target != router || at != routerMAC) || !c.ok && !errors.Is(err, ErrNoAnswer) {
			t.Errorf("neighbour's %s: got %v at %v, error %v", c.name, target, at, err)
		}
	}
}

func FuzzNeighbor(f *testing.F) {
	f.Add(answer(routerSays()))
	f.Add(answer(neighborSays(targetOption...)))
	f.Add(answer(neighborSays(packet.OptionTargetMAC, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if from, err := ParseRouterAdvertisement(b); err == nil && !from.IsLinkLocalUnicast() {
			t.Errorf("router %v", from)
		}
		if target, at, err := ParseNeighborAdvertisement(b); err == nil && (target.IsMulticast() || at.IsZero() || at.IsGroup()) {
			t.Errorf("neighbour %v at %v", target, at)
		}
	})
}
