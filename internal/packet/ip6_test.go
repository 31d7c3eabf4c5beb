package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var testPacket6 = Packet6{
	SrcMAC: mac.Addr{2, 1}, DstMAC: mac.Addr{2, 2},
	Src: netip.MustParseAddr("fe80::1"), Dst: netip.MustParseAddr("ff02::1:2"),
	Protocol: unix.IPPROTO_UDP, HopLimit: 64,
}

// testFrame is a frame of a UDP header with the payload.
func testFrame6(payload string) []byte {
	b := append(make([]byte, Head6Len+8), payload...)
	binary.BigEndian.PutUint16(b[Head6Len+4:], uint16(8+len(payload)))
	Seal6(b, testPacket6)
	return b
}

func TestPacket6RoundTrip(t *testing.T) {
	for _, payload := range []string{"", "x", "odd", "even", string(make([]byte, 1400))} {
		p, err := Parse6(testFrame6(payload), unix.IPPROTO_UDP, false)
		if err != nil || string(p.Payload[8:]) != payload {
			t.Fatalf("%d bytes: got %+v, %v", len(payload), p, err)
		}
		p.Payload = nil
		if p.Src != testPacket6.Src || p.Dst != testPacket6.Dst || p.SrcMAC != testPacket6.SrcMAC || p.DstMAC != testPacket6.DstMAC || p.HopLimit != 64 || p.Protocol != unix.IPPROTO_UDP {
			t.Errorf("got %+v", p)
		}
	}
}

func TestParse6(t *testing.T) {
	edit := func(change func([]byte)) []byte {
		b := testFrame6("payload")
		change(b)
		return b
	}
	for _, c := range []struct {
		name    string
		frame   []byte
		pending bool
		want    error
	}{
		{name: "whole", frame: testFrame6("payload")},
		{name: "padded", frame: append(testFrame6("payload"), make([]byte, 20)...)},
		{name: "empty", want: ErrBadFrame},
		{name: "short", frame: testFrame6("")[:Head6Len+7], want: ErrBadFrame},
		{name: "cut", frame: testFrame6("payload")[:Head6Len+10], want: ErrBadFrame},
		{name: "IPv4", frame: edit(func(b []byte) { b[12], b[13] = 8, 0 }), want: ErrBadFrame},
		{name: "VLAN", frame: edit(func(b []byte) { b[12], b[13] = 0x81, 0 }), want: ErrBadFrame},
		{name: "version", frame: edit(func(b []byte) { b[EthernetLen] = 0x45 }), want: ErrBadFrame},
		{name: "extension header", frame: edit(func(b []byte) { b[EthernetLen+6] = 0 }), want: ErrBadFrame},
		{name: "fragment", frame: edit(func(b []byte) { b[EthernetLen+6] = 44 }), want: ErrBadFrame},
		{name: "length", frame: edit(func(b []byte) { b[EthernetLen+4] = 0xff }), want: ErrBadFrame},
		{name: "length too small", frame: edit(func(b []byte) { b[EthernetLen+5] = 7 }), want: ErrBadFrame},
		{name: "checksum", frame: edit(func(b []byte) { b[Head6Len+8] ^= 1 }), want: ErrBadChecksum},
		{name: "checksum pending", frame: edit(func(b []byte) { b[Head6Len+8] ^= 1 }), pending: true},
		{name: "address", frame: edit(func(b []byte) { b[EthernetLen+8] ^= 1 }), want: ErrBadChecksum},
		{name: "no checksum", frame: edit(func(b []byte) { b[Head6Len+6], b[Head6Len+7] = 0, 0 }), want: ErrBadChecksum},
	} {
		if _, err := Parse6(c.frame, unix.IPPROTO_UDP, c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := Parse6(testFrame6(""), unix.IPPROTO_TCP, false); !errors.Is(err, ErrBadFrame) {
		t.Errorf("TCP: got %v", err)
	}
}

// TestUDP6ChecksumNeverZero: for UDP zero is not one.
func TestUDP6ChecksumNeverZero(t *testing.T) {
	found := false
	for i := range 1 << 16 {
		b := testFrame6(string([]byte{byte(i >> 8), byte(i)}))
		switch binary.BigEndian.Uint16(b[Head6Len+6:]) {
		case 0:
			t.Fatalf("payload %04x: checksum is zero", i)
		case 0xffff:
			found = true
		}
	}
	if !found {
		t.Error("no payload whose sum is zero was tried")
	}
}

// TestICMPv6ChecksumZero: a sender of ICMPv6 need not write another number in
// the place of a checksum that is zero (RFC 4443 §2.3).
func TestICMPv6ChecksumZero(t *testing.T) {
	p := testPacket6
	p.Protocol = unix.IPPROTO_ICMPV6
	for i := range 1 << 16 {
		b := append(make([]byte, Head6Len+4), byte(i>>8), byte(i))
		Seal6(b, p)
		sum := b[Head6Len+2 : Head6Len+4]
		if binary.BigEndian.Uint16(sum) != 0xffff {
			continue
		}
		clear(sum)
		if _, err := Parse6(b, unix.IPPROTO_ICMPV6, false); err != nil {
			t.Errorf("payload %04x: %v", i, err)
		}
		return
	}
	t.Error("no payload whose checksum is zero was tried")
}

func TestMulticastMAC(t *testing.T) {
	if got := MulticastMAC(netip.MustParseAddr("ff02::1:ff28:9c5a")); got != (mac.Addr{0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a}) {
		t.Errorf("got %x", got)
	}
}

func FuzzParseUDP6(f *testing.F) {
	whole := append(make([]byte, UDP6Len), "payload"...)
	SealUDP6(whole, UDP{Src: netip.MustParseAddrPort("[fe80::1]:546"), Dst: netip.MustParseAddrPort("[ff02::1:2]:547")})
	f.Add(whole, false)
	f.Add(whole[:UDP6Len-1], true)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		u, err := ParseUDP6(b, pending)
		if err == nil && len(u.Payload) > len(b)-UDP6Len {
			t.Fatalf("payload of %d bytes in a frame of %d", len(u.Payload), len(b))
		}
		if err != nil && !errors.Is(err, ErrBadFrame) && !errors.Is(err, ErrBadChecksum) {
			t.Fatalf("error %v has no reason", err)
		}
	})
}

func FuzzParse6(f *testing.F) {
	f.Add(testFrame6("payload"), byte(unix.IPPROTO_UDP), false)
	f.Add(testFrame6("payload")[:60], byte(unix.IPPROTO_ICMPV6), true)
	f.Fuzz(func(t *testing.T, b []byte, protocol byte, pending bool) {
		p, err := Parse6(b, protocol, pending)
		if err != nil {
			if !errors.Is(err, ErrBadFrame) && !errors.Is(err, ErrBadChecksum) {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		again := append(make([]byte, Head6Len), p.Payload...)
		Seal6(again, p)
		if q, err := Parse6(again, protocol, false); err != nil || q.Src != p.Src || q.Dst != p.Dst || q.HopLimit != p.HopLimit {
			t.Fatalf("%+v becomes %+v, %v", p, q, err)
		}
	})
}

// TestParseUDP6: the lengths of the packet and of the datagram agree.
func TestParseUDP6(t *testing.T) {
	want := UDP{
		SrcMAC: mac.Addr{2, 1}, DstMAC: mac.Addr{2, 2},
		Src: netip.MustParseAddrPort("[fe80::1]:546"), Dst: netip.MustParseAddrPort("[ff02::1:2]:547"),
	}
	whole := append(make([]byte, UDP6Len), "payload"...)
	SealUDP6(whole, want)
	for name, frame := range map[string][]byte{"": whole, "padded": append(slices.Clone(whole), 0, 0)} {
		got, err := ParseUDP6(frame, false)
		if err != nil || string(got.Payload) != "payload" || got.Src != want.Src || got.Dst != want.Dst || got.SrcMAC != want.SrcMAC || got.DstMAC != want.DstMAC {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	short := slices.Clone(whole)
	short[Head6Len+5]--
	for name, frame := range map[string][]byte{"of another length": short, "cut": whole[:UDP6Len-1]} {
		if _, err := ParseUDP6(frame, true); !errors.Is(err, ErrBadFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	whole[UDP6Len] ^= 1
	if _, err := ParseUDP6(whole, false); !errors.Is(err, ErrBadChecksum) {
		t.Errorf("damaged: %v", err)
	}
}
