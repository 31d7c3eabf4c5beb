package dhcp6

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
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
			frame := sealed(reply)
			read, err := dhcpv6.MessageFromBytes(frame[packet.UDP6Len:])
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
	addresses := func(n int) string {
		ia := "abcdabcdabcd" + strings.Repeat("\x00\x05\x00\x18"+string(long[:24]), n)
		return string(binary.BigEndian.AppendUint16([]byte{0, 3}, uint16(len(ia)))) + ia
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing but a head":  {raw(solicit, ""), nil},
		"unknown option":      {raw(solicit, "\x12\x34\x00\x01x"), nil},
		"vendor class, bad":   {raw(solicit, "\x00\x10\x00\x01x"), nil},
		"empty":               {nil, lease.DropMalformed},
		"half a head":         {[]byte{1, 2, 3}, lease.DropMalformed},
		"relayed":             {raw(dhcpv6.MessageTypeRelayForward, ""), lease.DropRelayed},
		"relay's reply":       {raw(dhcpv6.MessageTypeRelayReply, ""), lease.DropRelayed},
		"half an option":      {raw(solicit, "\x00\x01\x00"), lease.DropMalformed},
		"option too long":     {raw(solicit, "\x00\x01\x00\x09abcdefgh"), lease.DropMalformed},
		"short DUID":          {raw(solicit, "\x00\x01\x00\x02ab"), lease.DropMalformed},
		"long DUID":           {raw(solicit, "\x00\x01\x00\x83"+string(long)), lease.DropMalformed},
		"two DUIDs":           {raw(solicit, strings.Repeat("\x00\x01\x00\x03abc", 2)), lease.DropMalformed},
		"two servers":         {raw(solicit, strings.Repeat("\x00\x02\x00\x03abc", 2)), lease.DropMalformed},
		"short IA":            {raw(solicit, "\x00\x03\x00\x04abcd"), lease.DropMalformed},
		"short temporary IA":  {raw(solicit, "\x00\x04\x00\x03abc"), lease.DropMalformed},
		"short address":       {raw(solicit, "\x00\x03\x00\x14abcdabcdabcd\x00\x05\x00\x04abcd"), lease.DropMalformed},
		"prefix beyond IA":    {raw(request, "\x00\x19\x00\x10abcdabcdabcd\x00\x1a\x00\x19"), nil},
		"short prefix IA":     {raw(request, "\x00\x19\x00\x0babcdabcdabc"), lease.DropMalformed},
		"address beyond IA":   {raw(solicit, "\x00\x03\x00\x10abcdabcdabcd\x00\x05\x00\x18"), lease.DropMalformed},
		"odd list":            {raw(solicit, "\x00\x06\x00\x03abc"), lease.DropMalformed},
		"IAs without end":     {raw(solicit, strings.Repeat("\x00\x04\x00\x04abcd", maxIAs+1)), lease.DropMalformed},
		"IAs, many":           {raw(solicit, strings.Repeat("\x00\x04\x00\x04abcd", maxIAs)), nil},
		"addresses, many":     {raw(solicit, addresses(maxAddresses)), nil},
		"addresses, too many": {raw(solicit, addresses(maxAddresses+1)), lease.DropMalformed},
		"options without end": {raw(solicit, "\x00\x06\x02\x02"+string(make([]byte, 514))), lease.DropMalformed},
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

// TestProbe: the server knows the question of a check, and the check the answer.
func TestProbe(t *testing.T) {
	u, err := packet.ParseUDP6(probe.Solicit(guestMAC, xid), false)
	if err != nil || u.Src.Addr() != guestLocal {
		t.Fatalf("got %+v, %v", u, err)
	}
	req, err := parseMessage(u.Payload)
	if err != nil || !probe.IsSolicit(req) || probe.IsSolicit(message(solicit)) {
		t.Fatalf("not recognised: %v, %v", req, err)
	}
	reply, err := testLease().Reply(req, false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := probe.ParseDHCPv6(sealed(reply))
	if err != nil || got.TransactionID != xid || !got.Options.OneIANA().Options.OneAddress().IPv6Addr.Equal(address.AsSlice()) {
		t.Errorf("got %v, %v", got, err)
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

func FuzzReply(f *testing.F) {
	for _, m := range []*dhcpv6.Message{
		message(solicit, na(1), ta(2), pd(3), oro(23, 24, 39), generic(dhcpv6.OptionRapidCommit)),
		toUs(request, na(1, address)), toUs(renew, na(1, stale), na(2, address)), message(confirm, na(1, stale)),
		toUs(release, na(1, address), pd(2)), message(inform, oro(32, 39), generic(dhcpv6.OptionFQDN, 1, 2, 'a', 'b')),
	} {
		f.Add(m.ToBytes(), false)
	}
	f.Add(raw(renew, "\x00\x01\x00\x03abc\x00\x02\x00\x03abc"), true)
	r, _, err := fullLease().compile()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, unicast bool) {
		if len(b) > packet.MaxFrame-packet.UDP6Len {
			return
		}
		req, err := parseMessage(b)
		if err != nil {
			return
		}
		_ = clientOf(req)
		reply, err := r.reply(req, unicast)
		if err != nil {
			if _, ok := errors.AsType[lease.DropReason](err); !ok {
				t.Fatalf("error %v has no reason", err)
			}
			return
		}
		wire, _ := appendMessage(make([]byte, packet.UDP6Len), reply, 1232)
		if len(wire)-packet.UDP6Len > 1232 {
			t.Fatalf("%d bytes", len(wire)-packet.UDP6Len)
		}
		u, err := packet.ParseUDP6(sealed(reply), false)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseMessage(u.Payload)
		if err != nil {
			t.Fatalf("own reply is not one: %v", err)
		}
		if got.TransactionID != req.TransactionID || !bytes.Equal(valueOf(got, dhcpv6.OptionClientID), valueOf(req, dhcpv6.OptionClientID)) {
			t.Fatal("not for who asked")
		}
		if r.isIn(reply) != r.isIn(got) || strings.Count(fmt.Sprint(transcript(reply, nil)), address.String()+" 1800s") > 1 {
			t.Fatalf("the address is given more than once: %s", transcript(got, nil))
		}
	})
}
