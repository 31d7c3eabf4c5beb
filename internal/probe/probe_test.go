package ra

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// answer is an advertisement of the router to the guest as a frame.
func answer(message []byte, change ...func(*packet.Packet6, []byte)) []byte {
	b := append(make([]byte, packet.Head6Len), message...)
	p := packet.Packet6{
		SrcMAC: packet.MACOf(routerMAC), DstMAC: packet.MACOf(guestMAC), Src: router, Dst: guestLocal,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: hopLimit,
	}
	for _, f := range change {
		f(&p, b[packet.Head6Len:])
	}
	packet.Seal6(b, p)
	return b
}

// routerSays is the router's advertisement.
func routerSays(t testing.TB) []byte {
	t.Helper()
	messages, _, err := calico().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return messages[0]
}

// neighborSays is the router's neighbour advertisement with these options.
func neighborSays(options ...byte) []byte {
	return slices.Concat([]byte{typeNeighborAdvertisement, 0, 0, 0, 0xe0, 0, 0, 0}, router.AsSlice(), options)
}

var targetOption = append([]byte{optTargetMAC, 1}, routerMAC...)

// What the guest asks is what the server takes for a guest's question.
func TestSolicitationFrame(t *testing.T) {
	from, err := parseSolicitation(SolicitationFrame(guestMAC, guestLocal), packet.MACOf(guestMAC), false)
	if err != nil || from != guestLocal {
		t.Errorf("from %v, error %v", from, err)
	}
}

func TestParseAdvertisementFrames(t *testing.T) {
	says := routerSays(t)
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
		{name: "option of no length", frame: answer(append(slices.Clone(says[:headLen]), 1, 0, 0, 0, 0, 0, 0, 0))},
		{name: "cut", frame: answer(says[:headLen-1])},
		{name: "checksum", frame: damaged(answer(says))},
		{name: "empty"},
	} {
		got, err := ParseAdvertisementFrame(c.frame)
		if (err == nil) != c.ok || c.ok && got != router || !c.ok && !errors.Is(err, ErrNotAdvertisement) {
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
		{name: "with a group's MAC", frame: answer(neighborSays(optTargetMAC, 1, 0x33, 0x33, 0, 0, 0, 1))},
		{name: "of a router", frame: answer(says)},
		{name: "cut", frame: answer(neighborSays()[:neighborLen-1])},
		{name: "half an option", frame: answer(neighborSays(optTargetMAC))},
		{name: "checksum", frame: damaged(answer(neighborSays(targetOption...)))},
		{name: "empty"},
	} {
		target, mac, err := ParseNeighborAdvertisementFrame(c.frame)
		if (err == nil) != c.ok || c.ok && (target != router || mac.String() != routerMAC.String()) || !c.ok && !errors.Is(err, ErrNotAdvertisement) {
			t.Errorf("neighbour's %s: got %v at %v, error %v", c.name, target, mac, err)
		}
	}
}

func FuzzAdvertisement(f *testing.F) {
	f.Add(answer(routerSays(f)))
	f.Add(answer(neighborSays(targetOption...)))
	f.Add(answer(neighborSays(optTargetMAC, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if from, err := ParseAdvertisementFrame(b); err == nil && !from.IsLinkLocalUnicast() {
			t.Errorf("router %v", from)
		}
		if target, mac, err := ParseNeighborAdvertisementFrame(b); err == nil && (target.IsMulticast() || !isHost(net.HardwareAddr(mac))) {
			t.Errorf("neighbour %v at %v", target, mac)
		}
	})
}
