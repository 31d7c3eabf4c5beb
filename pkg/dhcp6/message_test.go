package dhcp6

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// TestGolden keeps what goes onto the wire: the frame's bytes and what another
// implementation reads in them.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name  string
		lease Lease
		req   *dhcpv6.Message
	}{
		{"advertise", testLease(), message(solicit, na(1), oro(23, 24))},
		{"reply-rapid", fullLease(), message(solicit, na(1), generic(dhcpv6.OptionRapidCommit), oro(23, 24, 31, 56, 59, 60, 82))},
		{"reply-renew", testLease(), toUs(renew, na(1, address, stale), na(2), pd(3))},
		{"reply-not-on-link", testLease(), message(confirm, na(1, stale))},
		{"reply-release", testLease(), toUs(release, na(1, address), na(2, stale))},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, err := c.lease.Reply(parsed(t, c.req), false)
			if err != nil {
				t.Fatal(err)
			}
			frame, left := appendMessage(make([]byte, headLen), reply, 1232)
			sealFrame(frame, datagram{
				Packet6: packet.Packet6{SrcMAC: packet.MAC{0xfe, 1}, DstMAC: packet.MACOf(guestMAC), Src: gateway, Dst: guestLocal},
				srcPort: serverPort, dstPort: clientPort,
			})
			if len(left) != 0 {
				t.Errorf("left out %v", left)
			}
			read, err := dhcpv6.MessageFromBytes(frame[headLen:])
			if err != nil {
				t.Fatalf("another implementation cannot read it: %v", err)
			}
			golden(t, c.name+".golden", read.Summary()+"\n"+hex.Dump(frame))
		})
	}
}

// raw is a message of options as they are.
func raw(typ dhcpv6.MessageType, options string) []byte {
	return append([]byte{byte(typ), 1, 2, 3}, options...)
}

func TestParseMessage(t *testing.T) {
	long := make([]byte, 131)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing but a head":  {raw(solicit, ""), nil},
		"unknown option":      {raw(solicit, "\x12\x34\x00\x01x"), nil},
		"vendor class, bad":   {raw(solicit, "\x00\x10\x00\x01x"), nil},
		"empty":               {nil, Malformed},
		"half a head":         {[]byte{1, 2, 3}, Malformed},
		"relayed":             {raw(dhcpv6.MessageTypeRelayForward, ""), Relayed},
		"relay's reply":       {raw(dhcpv6.MessageTypeRelayReply, ""), Relayed},
		"half an option":      {raw(solicit, "\x00\x01\x00"), Malformed},
		"option too long":     {raw(solicit, "\x00\x01\x00\x09abcdefgh"), Malformed},
		"short DUID":          {raw(solicit, "\x00\x01\x00\x02ab"), Malformed},
		"long DUID":           {raw(solicit, "\x00\x01\x00\x83"+string(long)), Malformed},
		"two DUIDs":           {raw(solicit, strings.Repeat("\x00\x01\x00\x03abc", 2)), Malformed},
		"two servers":         {raw(solicit, strings.Repeat("\x00\x02\x00\x03abc", 2)), Malformed},
		"short IA":            {raw(solicit, "\x00\x03\x00\x04abcd"), Malformed},
		"short temporary IA":  {raw(solicit, "\x00\x04\x00\x03abc"), Malformed},
		"short address":       {raw(solicit, "\x00\x03\x00\x14abcdabcdabcd\x00\x05\x00\x04abcd"), Malformed},
		"address beyond IA":   {raw(solicit, "\x00\x03\x00\x10abcdabcdabcd\x00\x05\x00\x18"), Malformed},
		"odd list":            {raw(solicit, "\x00\x06\x00\x03abc"), Malformed},
		"IAs without end":     {raw(solicit, strings.Repeat("\x00\x04\x00\x04abcd", maxIAs+1)), Malformed},
		"IAs, many":           {raw(solicit, strings.Repeat("\x00\x04\x00\x04abcd", maxIAs)), nil},
		"options without end": {raw(solicit, "\x00\x06\x02\x02"+string(make([]byte, 514))), Malformed},
	} {
		m, err := parseMessage(c.b)
		if c.want == nil && err != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if err == nil {
			_ = clientOf(m)
		}
	}
}

func TestParseFrame(t *testing.T) {
	edit := func(change func([]byte)) []byte {
		b := frameOf(message(solicit, na(1)))
		change(b)
		return b
	}
	sum := func(b []byte) { // right again
		p := packet.Packet6{Src: guestLocal, Dst: allServers, Protocol: 17}
		packet.Seal6(b, p)
	}
	for _, c := range []struct {
		name    string
		frame   []byte
		pending bool
		want    error
	}{
		{name: "whole", frame: edit(func([]byte) {})},
		{name: "padded", frame: append(frameOf(message(solicit)), 0, 0, 0)},
		{name: "cut", frame: frameOf(message(solicit))[:headLen], want: BadFrame},
		{name: "empty", want: BadFrame},
		{name: "checksum", frame: edit(func(b []byte) { b[headLen] ^= 1 }), want: BadChecksum},
		{name: "checksum pending", frame: edit(func(b []byte) { b[headLen] ^= 1 }), pending: true},
		{name: "length", frame: edit(func(b []byte) { b[headLen-3]--; sum(b) }), want: BadFrame},
	} {
		if _, err := parseFrame(c.frame, c.pending); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
}

func TestProbe(t *testing.T) {
	frame := SolicitFrame(guestMAC, xid)
	d, err := parseFrame(frame, false)
	if err != nil || d.Src != guestLocal || d.Dst != allServers {
		t.Fatalf("got %+v, %v", d, err)
	}
	req, err := parseMessage(d.message)
	if err != nil || !isProbe(req) || isProbe(message(solicit)) {
		t.Fatalf("not recognised: %v, %v", req, err)
	}
	for name, b := range map[string][]byte{"the question": frame, "garbage": []byte("garbage"), "cut": frame[:70]} {
		if _, err := ParseReplyFrame(b); !errors.Is(err, ErrNotReply) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestClient(t *testing.T) {
	m := message(solicit,
		generic(dhcpv6.OptionFQDN, []byte("\x01\x04vm-a\x03\x07xy\x00")...),
		generic(dhcpv6.OptionVendorClass, []byte("\x00\x00\x01\x37\x00\x08MSFT 5.0")...))
	if got := clientOf(parsed(t, m)); got.Hostname != "vm-a.?xy" || got.VendorClass != "MSFT 5.0" || got.ID != hex.EncodeToString(guestDUID) {
		t.Errorf("got %+v", got)
	}
}

func TestLinkLocal(t *testing.T) {
	if got := linkLocal(net.HardwareAddr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}); got != netip.MustParseAddr("fe80::42:aff:fef4:107") {
		t.Errorf("got %v", got)
	}
}

func FuzzReply(f *testing.F) {
	for _, m := range []*dhcpv6.Message{
		message(solicit, na(1), ta(2), pd(3), oro(23, 24, 39), generic(dhcpv6.OptionRapidCommit)),
		toUs(request, na(1, address)), toUs(renew, na(1, stale), na(2, address)), message(confirm, na(1, stale)),
		toUs(release, na(1, address), pd(2)), message(inform, oro(32, 39), generic(dhcpv6.OptionFQDN, 1, 2, 'a', 'b')),
	} {
		f.Add(m.ToBytes(), false)
	}
	f.Add(raw(renew, "\x00\x01\x00\x03abc\x00\x02\x00\x03abc"), true)
	r, _, err := fullLease().Compile()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, unicast bool) {
		if len(b) > packet.MaxFrame-headLen {
			return
		}
		req, err := parseMessage(b)
		if err != nil {
			return
		}
		_ = clientOf(req)
		reply, err := r.Reply(req, unicast)
		if err != nil {
			if _, ok := errors.AsType[Silence](err); !ok {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		wire, _ := appendMessage(make([]byte, headLen), reply, 1232)
		if len(wire)-headLen > 1232 {
			t.Fatalf("%d bytes", len(wire)-headLen)
		}
		sealFrame(wire, datagram{Packet6: packet.Packet6{Src: gateway, Dst: guestLocal}, srcPort: serverPort, dstPort: clientPort})
		got, err := ParseReplyFrame(wire)
		if err != nil {
			t.Fatalf("own reply is not one: %v", err)
		}
		if got.TransactionID != req.TransactionID || !bytes.Equal(valueOf(got, dhcpv6.OptionClientID), valueOf(req, dhcpv6.OptionClientID)) {
			t.Fatal("not for who asked")
		}
		if r.grants(reply) != r.grants(got) || strings.Count(fmt.Sprint(transcript(got, nil)), address.String()+" 1800s") > 1 {
			t.Fatalf("the address is given more than once: %s", transcript(got, nil))
		}
	})
}

func FuzzFrame(f *testing.F) {
	f.Add(SolicitFrame(guestMAC, xid), false)
	f.Add(frameOf(message(solicit)), true)
	f.Fuzz(func(t *testing.T, b []byte, pending bool) {
		d, err := parseFrame(b, pending)
		if err != nil {
			if _, ok := errors.AsType[Silence](err); !ok {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		if len(d.message) > len(b)-headLen || d.dstPort != binary.BigEndian.Uint16(b[packet.Head6Len+2:]) {
			t.Fatalf("%d bytes in a frame of %d", len(d.message), len(b))
		}
	})
}
