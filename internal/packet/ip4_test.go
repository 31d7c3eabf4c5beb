package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var testUDP4 = UDP{
	SrcMAC: mac.Addr{2, 0, 0, 0, 0, 7}, DstMAC: Broadcast,
	Src: netip.MustParseAddrPort("0.0.0.0:68"), Dst: netip.MustParseAddrPort("255.255.255.255:67"),
}

func testFrame4(payload string) []byte {
	b := append(make([]byte, UDP4Len), payload...)
	SealUDP4(b, testUDP4)
	return b
}

func TestUDP4RoundTrip(t *testing.T) {
	for _, payload := range []string{"", "x", "odd", "even", string(make([]byte, 1400))} {
		d, err := ParseUDP4(testFrame4(payload), false)
		if err != nil || string(d.Payload) != payload || d.SrcMAC != testUDP4.SrcMAC || d.DstMAC != Broadcast || d.Src != testUDP4.Src || d.Dst != testUDP4.Dst {
			t.Errorf("%d bytes: got %+v, %v", len(payload), d, err)
		}
	}
}

func TestParseUDP4(t *testing.T) {
	edit := func(change func([]byte)) []byte {
		b := testFrame4("payload")
		change(b)
		return b
	}
	resum := func(b []byte) { // a right header checksum again
		binary.BigEndian.PutUint16(b[EthernetLen+10:], 0)
		binary.BigEndian.PutUint16(b[EthernetLen+10:], ^fold(sum(0, b[EthernetLen:EthernetLen+ipv4Len])))
	}
	for _, c := range []struct {
		name    string
		frame   []byte
		pending bool
		want    error
	}{
		{name: "whole", frame: testFrame4("payload")},
		{name: "padded", frame: append(testFrame4("payload"), make([]byte, 20)...)},
		{name: "empty", want: ErrBadFrame},
		{name: "short", frame: testFrame4("")[:UDP4Len-1], want: ErrBadFrame},
		{name: "cut", frame: testFrame4("payload")[:UDP4Len+3], want: ErrBadFrame},
		{name: "IPv6", frame: edit(func(b []byte) { b[12], b[13] = 0x86, 0xdd }), want: ErrBadFrame},
		{name: "VLAN", frame: edit(func(b []byte) { b[12], b[13] = 0x81, 0x00 }), want: ErrBadFrame},
		{name: "version", frame: edit(func(b []byte) { b[EthernetLen] = 0x65; resum(b) }), want: ErrBadFrame},
		{name: "header length", frame: edit(func(b []byte) { b[EthernetLen] = 0x44; resum(b) }), want: ErrBadFrame},
		{name: "header beyond the frame", frame: edit(func(b []byte) { b[EthernetLen] = 0x4f }), want: ErrBadFrame},
		{name: "total length", frame: edit(func(b []byte) { b[EthernetLen+2] = 0xff; resum(b) }), want: ErrBadFrame},
		{name: "total length too small", frame: edit(func(b []byte) { b[EthernetLen+3] = 21; resum(b) }), want: ErrBadFrame},
		{name: "first fragment", frame: edit(func(b []byte) { b[EthernetLen+6] = 0x20; resum(b) }), want: ErrBadFrame},
		{name: "later fragment", frame: edit(func(b []byte) { b[EthernetLen+6], b[EthernetLen+7] = 0, 1; resum(b) }), want: ErrBadFrame},
		{name: "TCP", frame: edit(func(b []byte) { b[EthernetLen+9] = 6; resum(b) }), want: ErrBadFrame},
		{name: "header checksum", frame: edit(func(b []byte) { b[EthernetLen+10] ^= 1 }), want: ErrBadChecksum},
		{name: "UDP length", frame: edit(func(b []byte) { b[EthernetLen+ipv4Len+4] = 1 }), want: ErrBadFrame},
		{name: "UDP length too small", frame: edit(func(b []byte) { b[EthernetLen+ipv4Len+5] = 7 }), want: ErrBadFrame},
		{name: "UDP checksum", frame: edit(func(b []byte) { b[UDP4Len] ^= 1 }), want: ErrBadChecksum},
		{name: "UDP checksum pending", frame: edit(func(b []byte) { b[UDP4Len] ^= 1 }), pending: true},
		{name: "no UDP checksum", frame: edit(func(b []byte) { b[UDP4Len-1], b[UDP4Len-2] = 0, 0 })},
	} {
		if _, err := ParseUDP4(c.frame, c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestUDP4ChecksumNeverZero: zero would say that there is none.
func TestUDP4ChecksumNeverZero(t *testing.T) {
	found := false
	for i := range 1 << 16 {
		b := testFrame4(string([]byte{byte(i >> 8), byte(i)}))
		switch binary.BigEndian.Uint16(b[UDP4Len-2:]) {
		case 0:
			t.Fatalf("payload %04x: checksum is zero", i)
		case 0xffff:
			found = true
		}
		if _, err := ParseUDP4(b, false); err != nil {
			t.Fatalf("payload %04x: %v", i, err)
		}
	}
	if !found {
		t.Error("no payload whose sum is zero was tried")
	}
}

func FuzzParseUDP4(f *testing.F) {
	f.Add(testFrame4("payload"), false)
	f.Add(testFrame4("payload"), true)
	f.Add(testFrame4("")[:20], false)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		u, err := ParseUDP4(b, pending)
		if err != nil {
			if !errors.Is(err, ErrBadFrame) && !errors.Is(err, ErrBadChecksum) {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		if len(u.Payload) > len(b)-UDP4Len {
			t.Fatalf("payload of %d bytes in a frame of %d", len(u.Payload), len(b))
		}
		again := append(make([]byte, UDP4Len), u.Payload...)
		SealUDP4(again, u)
		if v, err := ParseUDP4(again, false); err != nil || v.Src != u.Src || v.Dst != u.Dst {
			t.Fatalf("%+v becomes %+v, %v", u, v, err)
		}
	})
}
