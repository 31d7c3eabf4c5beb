package dhcp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

func testFrame(payload string) []byte {
	b := append(make([]byte, headLen), payload...)
	sealFrame(b, endpoint{packet.MACOf(guestMAC), netip.IPv4Unspecified(), clientPort}, endpoint{broadcastMAC, broadcastIP, serverPort})
	return b
}

func TestFrameRoundTrip(t *testing.T) {
	for _, payload := range []string{"", "x", "odd", "even", string(make([]byte, 1400))} {
		d, err := parseFrame(testFrame(payload), false)
		if err != nil || string(d.payload) != payload || d.src.mac != packet.MACOf(guestMAC) || d.dst != (endpoint{broadcastMAC, broadcastIP, serverPort}) {
			t.Errorf("%d bytes: got %+v, %v", len(payload), d, err)
		}
	}
}

func TestParseFrame(t *testing.T) {
	edit := func(change func([]byte)) []byte {
		b := testFrame("payload")
		change(b)
		return b
	}
	resum := func(b []byte) { // a right header checksum again
		binary.BigEndian.PutUint16(b[ethLen+10:], 0)
		binary.BigEndian.PutUint16(b[ethLen+10:], ^packet.Fold(packet.Sum(0, b[ethLen:ethLen+ipLen])))
	}
	for _, c := range []struct {
		name    string
		frame   []byte
		pending bool
		want    error
	}{
		{name: "whole", frame: testFrame("payload")},
		{name: "padded", frame: append(testFrame("payload"), make([]byte, 20)...)},
		{name: "empty", want: BadFrame},
		{name: "short", frame: testFrame("")[:headLen-1], want: BadFrame},
		{name: "cut", frame: testFrame("payload")[:headLen+3], want: BadFrame},
		{name: "IPv6", frame: edit(func(b []byte) { b[12], b[13] = 0x86, 0xdd }), want: BadFrame},
		{name: "VLAN", frame: edit(func(b []byte) { b[12], b[13] = 0x81, 0x00 }), want: BadFrame},
		{name: "version", frame: edit(func(b []byte) { b[ethLen] = 0x65; resum(b) }), want: BadFrame},
		{name: "header length", frame: edit(func(b []byte) { b[ethLen] = 0x44; resum(b) }), want: BadFrame},
		{name: "header beyond the frame", frame: edit(func(b []byte) { b[ethLen] = 0x4f }), want: BadFrame},
		{name: "total length", frame: edit(func(b []byte) { b[ethLen+2] = 0xff; resum(b) }), want: BadFrame},
		{name: "total length too small", frame: edit(func(b []byte) { b[ethLen+3] = 21; resum(b) }), want: BadFrame},
		{name: "first fragment", frame: edit(func(b []byte) { b[ethLen+6] = 0x20; resum(b) }), want: BadFrame},
		{name: "later fragment", frame: edit(func(b []byte) { b[ethLen+6], b[ethLen+7] = 0, 1; resum(b) }), want: BadFrame},
		{name: "TCP", frame: edit(func(b []byte) { b[ethLen+9] = 6; resum(b) }), want: BadFrame},
		{name: "header checksum", frame: edit(func(b []byte) { b[ethLen+10] ^= 1 }), want: BadChecksum},
		{name: "UDP length", frame: edit(func(b []byte) { b[ethLen+ipLen+4] = 1 }), want: BadFrame},
		{name: "UDP length too small", frame: edit(func(b []byte) { b[ethLen+ipLen+5] = 7 }), want: BadFrame},
		{name: "UDP checksum", frame: edit(func(b []byte) { b[headLen] ^= 1 }), want: BadChecksum},
		{name: "UDP checksum pending", frame: edit(func(b []byte) { b[headLen] ^= 1 }), pending: true},
		{name: "no UDP checksum", frame: edit(func(b []byte) { b[headLen-1], b[headLen-2] = 0, 0 })},
	} {
		if _, err := parseFrame(c.frame, c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

// TestChecksumNeverZero: zero would say that there is none.
func TestChecksumNeverZero(t *testing.T) {
	found := false
	for i := range 1 << 16 {
		b := testFrame(string([]byte{byte(i >> 8), byte(i)}))
		switch binary.BigEndian.Uint16(b[headLen-2:]) {
		case 0:
			t.Fatalf("payload %04x: checksum is zero", i)
		case 0xffff:
			found = true
		}
		if _, err := parseFrame(b, false); err != nil {
			t.Fatalf("payload %04x: %v", i, err)
		}
	}
	if !found {
		t.Error("no payload whose sum is zero was tried")
	}
}

func TestProbe(t *testing.T) {
	frame := DiscoverFrame(guestMAC, 0xcafe0001)
	d, err := parseFrame(frame, false)
	if err != nil {
		t.Fatal(err)
	}
	req, err := parseMessage(d.payload)
	if err != nil {
		t.Fatal(err)
	}
	if !isProbe(req) || isProbe(discover()) || d.src.mac != packet.MACOf(guestMAC) || req.TransactionID != xid {
		t.Errorf("not recognised: %v", req)
	}
	reply, err := testLease().Reply(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, left := appendMessage(make([]byte, headLen), reply, nil, maxMessage(req, 1500))
	seal(answer, reply, packet.MAC{2}, testLease().Server)
	got, err := ParseReplyFrame(answer)
	if err != nil || len(left) > 0 || !got.YourIPAddr.Equal(address) || got.TransactionID != xid {
		t.Errorf("got %v, %v, left out %v", got, err, left)
	}
	for name, b := range map[string][]byte{"the question": frame, "garbage": []byte("garbage"), "cut": answer[:200]} {
		if _, err := ParseReplyFrame(b); !errors.Is(err, ErrNotReply) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(DiscoverFrame(guestMAC, 1), false)
	f.Add(testFrame("payload"), true)
	f.Add(testFrame("")[:20], false)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		d, err := parseFrame(b, pending)
		if err != nil {
			if _, ok := errors.AsType[Silence](err); !ok {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		if len(d.payload) > len(b)-headLen {
			t.Fatalf("payload of %d bytes in a frame of %d", len(d.payload), len(b))
		}
		if m, err := parseMessage(d.payload); err == nil && clientOf(m).Hostname != journal.Printable([]byte(clientOf(m).Hostname)) {
			t.Fatal("hostname cannot be printed")
		}
	})
}
