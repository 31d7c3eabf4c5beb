package dhcp6

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

const (
	solicit = dhcpv6.MessageTypeSolicit
	request = dhcpv6.MessageTypeRequest
	confirm = dhcpv6.MessageTypeConfirm
	renew   = dhcpv6.MessageTypeRenew
	rebind  = dhcpv6.MessageTypeRebind
	release = dhcpv6.MessageTypeRelease
	decline = dhcpv6.MessageTypeDecline
	inform  = dhcpv6.MessageTypeInformationRequest
)

const given = "fd00:10:244:1::7 ∞/∞, ∞ ∞"

// TestReply is RFC 8415 §16 and §18.3 for one client.
func TestReply(t *testing.T) {
	rapid := generic(dhcpv6.OptionRapidCommit)
	other := generic(dhcpv6.OptionServerID, 0, 3, 0, 1, 9, 9, 9, 9, 9, 9)
	none := oro() // so that no settings are in the way
	withoutID := func(m *dhcpv6.Message) *dhcpv6.Message {
		m.Options.Options = m.Options.Options[1:]
		return m
	}
	for _, c := range []struct {
		name string
		req  *dhcpv6.Message
		want string
	}{
		{"solicit", message(solicit, na(1), none), "ADVERTISE na1(" + given + ") 7 23 24"},
		{"solicit, another address wished", message(solicit, na(1, stale), none), "ADVERTISE na1(" + given + ") 7 23 24"},
		{"solicit, rapid", message(solicit, na(1), rapid), "REPLY na1(" + given + ") 14 23 24"},
		{"solicit, rapid, nothing to give", message(solicit, pd(1), rapid), "ADVERTISE pd1(NoPrefixAvail) 7 23 24"},
		{"solicit, all kinds", message(solicit, pd(1), ta(2), na(3), na(4)), "ADVERTISE pd1(NoPrefixAvail) ta2(NoAddrsAvail) na3(" + given + ") na4(NoAddrsAvail) 7 23 24"},
		{"solicit, the second has it", message(solicit, na(1), na(2, address)), "ADVERTISE na1(NoAddrsAvail) na2(" + given + ") 7 23 24"},
		{"solicit of nothing", message(solicit), "ADVERTISE 7 23 24"},
		{"solicit of nobody", withoutID(message(solicit, na(1))), "malformed"},
		{"solicit to a server", toUs(solicit, na(1)), "malformed"},

		{"request", toUs(request, na(1, address)), "REPLY na1(" + given + ") 23 24"},
		{"request, no address", toUs(request, na(1)), "REPLY na1(" + given + ") 23 24"},
		{"request, another address", toUs(request, na(1, stale)), "REPLY na1(NotOnLink) 23 24"},
		{"request, two", toUs(request, na(1, address), na(2)), "REPLY na1(" + given + ") na2(NoAddrsAvail) 23 24"},
		{"request, prefix", toUs(request, pd(1)), "REPLY pd1(NoPrefixAvail) 23 24"},
		{"request to nobody", message(request, na(1, address)), "malformed"},
		{"request to another", message(request, other, na(1, address)), "other-server"},
		{"request of nobody", withoutID(toUs(request, na(1))), "malformed"},

		{"confirm", message(confirm, na(1, address)), "REPLY Success"},
		{"confirm, another address", message(confirm, na(1, stale)), "REPLY NotOnLink"},
		{"confirm, one of two", message(confirm, na(1, address, stale)), "REPLY NotOnLink"},
		{"confirm, temporary", message(confirm, ta(1, address)), "REPLY NotOnLink"},
		{"confirm of nothing", message(confirm, na(1)), "no-address"},
		{"confirm to a server", toUs(confirm, na(1, address)), "malformed"},

		{"renew", toUs(renew, na(1, address)), "REPLY na1(" + given + ") 23 24"},
		{"renew, another address", toUs(renew, na(1, stale)), "REPLY na1(fd00:10:244:1::7 ∞/∞, fd00:10:244:9::9 0s/0s, ∞ ∞) 23 24"},
		{"renew, one too many", toUs(renew, na(1, stale, address)), "REPLY na1(fd00:10:244:1::7 ∞/∞, fd00:10:244:9::9 0s/0s, ∞ ∞) 23 24"},
		{"renew, two", toUs(renew, na(1, stale), na(2, address), na(3)), "REPLY na1(fd00:10:244:9::9 0s/0s) na2(" + given + ") na3(NoAddrsAvail) 23 24"},
		{"renew, the same twice", toUs(renew, na(1, address), na(2, address)), "REPLY na1(" + given + ") na2(NoAddrsAvail) 23 24"},
		{"renew, prefix", toUs(renew, na(1, address), pd(1)), "REPLY na1(" + given + ") pd1(NoPrefixAvail) 23 24"},
		{"renew to another", message(renew, other, na(1, address)), "other-server"},
		{"renew to nobody", message(renew, na(1, address)), "malformed"},
		{"rebind", message(rebind, na(1, address)), "REPLY na1(" + given + ") 23 24"},
		{"rebind, another address", message(rebind, na(1, stale)), "REPLY na1(fd00:10:244:1::7 ∞/∞, fd00:10:244:9::9 0s/0s, ∞ ∞) 23 24"},
		{"rebind to a server", toUs(rebind, na(1, address)), "malformed"},

		{"release", toUs(release, na(1, address)), "REPLY Success"},
		{"release, another address", toUs(release, na(1, stale)), "REPLY Success na1(NoBinding)"},
		{"release, all kinds", toUs(release, na(1, address), na(2, stale), ta(3), pd(4)), "REPLY Success na2(NoBinding) ta3(NoBinding) pd4(NoBinding)"},
		{"release to another", message(release, other, na(1, address)), "other-server"},
		{"release to nobody", message(release, na(1, address)), "malformed"},
		{"decline", toUs(decline, na(1, address)), "REPLY Success"},
		{"decline, another address", toUs(decline, na(1, stale)), "REPLY Success na1(NoBinding)"},

		{"inform", message(inform), "REPLY 23 24"},
		{"inform of nobody", withoutID(message(inform)), "REPLY 23 24"},
		{"inform to us", toUs(inform), "REPLY 23 24"},
		{"inform to another", message(inform, other), "other-server"},
		{"inform, an address", message(inform, na(1)), "malformed"},
		{"inform, a temporary address", message(inform, ta(1)), "malformed"},
		{"inform, a prefix", message(inform, pd(1)), "malformed"},

		{"advertise", message(dhcpv6.MessageTypeAdvertise), "unexpected-type"},
		{"reply", message(dhcpv6.MessageTypeReply), "unexpected-type"},
		{"reconfigure", message(dhcpv6.MessageTypeReconfigure), "unexpected-type"},
		{"unknown", message(99), "unexpected-type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, err := testLease().Reply(parsed(t, c.req), false)
			if got := transcript(reply, err); got != c.want {
				t.Fatalf("got  %s\nwant %s", got, c.want)
			}
			if err != nil {
				return
			}
			if reply.TransactionID != xid || !bytes.Equal(valueOf(reply, dhcpv6.OptionServerID), serverID(guestMAC).ToBytes()) {
				t.Errorf("transaction %v, server %v", reply.TransactionID, reply.Options.ServerID())
			}
			if client := valueOf(parsed(t, c.req), dhcpv6.OptionClientID); !bytes.Equal(valueOf(reply, dhcpv6.OptionClientID), client) {
				t.Errorf("client is %v", reply.Options.ClientID())
			}
		})
	}
}

// TestUnicast: no guest is allowed to ask one server (RFC 8415 §16, §18.3).
func TestUnicast(t *testing.T) {
	for _, c := range []struct {
		req  *dhcpv6.Message
		want string
	}{
		{message(solicit, na(1)), "unicast"},
		{message(confirm, na(1, address)), "unicast"},
		{message(rebind, na(1, address)), "unicast"},
		{message(inform), "unicast"},
		{toUs(request, na(1)), "REPLY UseMulticast"},
		{toUs(renew, na(1, address)), "REPLY UseMulticast"},
		{toUs(release, na(1, address)), "REPLY UseMulticast"},
		{toUs(decline, na(1, address)), "REPLY UseMulticast"},
		{message(request, na(1)), "malformed"},
		{message(renew, generic(dhcpv6.OptionServerID, 0, 3, 9)), "other-server"},
	} {
		reply, err := testLease().Reply(parsed(t, c.req), true)
		if got := transcript(reply, err); got != c.want {
			t.Errorf("%v: got %s, want %s", c.req.MessageType, got, c.want)
		}
	}
}

// TestSettings: what is asked for is sent, in the same order whatever the list's.
func TestSettings(t *testing.T) {
	fqdn := generic(dhcpv6.OptionFQDN, append([]byte{1}, "\x05guest"...)...)
	for _, c := range []struct {
		name  string
		lease Lease
		req   *dhcpv6.Message
		want  string
	}{
		{"no list", fullLease(), message(inform), "REPLY 23 24"},
		{"one", fullLease(), message(inform, oro(24)), "REPLY 24"},
		{"all", fullLease(), message(inform, oro(83, 82, 60, 59, 56, 39, 32, 31, 24, 23, 7, 99), fqdn), "REPLY 23 24 56 31 82 83 32 59 39"},
		{"two lists", fullLease(), message(inform, oro(24), oro(23)), "REPLY 23 24"},
		{"refresh time is for information alone", fullLease(), message(solicit, oro(32)), "ADVERTISE 7"},
		{"a name without asking", fullLease(), message(inform, oro(24), fqdn), "REPLY 24"},
		{"asked, without a name", fullLease(), message(inform, oro(39)), "REPLY"},
		{"the file has none", Lease{MAC: guestMAC, Address: address, Server: gateway}, message(inform, oro(23, 24, 31, 56, 59, 60)), "REPLY"},
		{"with an end", fullLease(), message(solicit, na(1), oro(23)), "ADVERTISE na1(fd00:10:244:1::7 1800s/1800s, 900s 1440s) 7 23"},
	} {
		reply, err := c.lease.Reply(parsed(t, c.req), false)
		if got := transcript(reply, err); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// TestNTP: an option has one time source, and there is one for each (RFC 5908 §4).
func TestNTP(t *testing.T) {
	l := fullLease()
	l.NTP = append(l.NTP, netip.MustParseAddr("fd00:10:96::124"))
	reply, err := l.Reply(parsed(t, message(inform, oro(dhcpv6.OptionNTPServer))), false)
	if err != nil {
		t.Fatal(err)
	}
	read, err := dhcpv6.MessageFromBytes(reply.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range read.Options.Get(dhcpv6.OptionNTPServer) {
		sources := o.(*dhcpv6.OptNTPServer).Suboptions
		if len(sources) != 1 {
			t.Errorf("an option has %d sources", len(sources))
		}
		for _, s := range sources {
			got = append(got, net.IP(*s.(*dhcpv6.NTPSuboptionSrvAddr)).String())
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(l.NTP) {
		t.Errorf("got %v, want %v", got, l.NTP)
	}
}

func TestFQDN(t *testing.T) {
	named, nameless := fullLease(), testLease()
	for _, c := range []struct {
		lease Lease
		asked string
		want  string
	}{
		{named, "\x01\x05guest", "\x06\x04vm-a"},
		{named, "\x00\x05guest", "\x04\x04vm-a"},
		{nameless, "\x01\x05guest\x00", "\x06\x05guest\x00"},
		{nameless, "", "\x04"},
	} {
		reply, err := c.lease.Reply(parsed(t, message(inform, oro(39), generic(dhcpv6.OptionFQDN, []byte(c.asked)...))), false)
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.Options.GetOne(dhcpv6.OptionFQDN).ToBytes(); string(got) != c.want {
			t.Errorf("%q is answered with %q, want %q", c.asked, got, c.want)
		}
	}
}

// TestFit: settings that a packet has no room for are left out, and told.
func TestFit(t *testing.T) {
	l := fullLease()
	l.Search = nil
	for i := range 20 {
		l.Search = append(l.Search, strings.Repeat("a.", 60)+fmt.Sprintf("example%d", i))
	}
	reply, err := l.Reply(parsed(t, message(solicit, na(1), oro(23, 24, 59))), false)
	if err != nil {
		t.Fatal(err)
	}
	wire, left := appendMessage(nil, reply, 1232)
	if len(wire) > 1232 || fmt.Sprint(left) != fmt.Sprint([]dhcpv6.OptionCode{dhcpv6.OptionDomainSearchList}) {
		t.Errorf("%d bytes, left out %v", len(wire), left)
	}
	got, err := dhcpv6.MessageFromBytes(wire)
	if err != nil || transcript(got, nil) != "ADVERTISE na1(fd00:10:244:1::7 1800s/1800s, 900s 1440s) 7 23 59" {
		t.Errorf("got %s, %v", transcript(got, nil), err)
	}
}

func TestServerID(t *testing.T) {
	if a, b := serverID(guestMAC).ToBytes(), serverID(guestMAC).ToBytes(); !bytes.Equal(a, b) || len(a) != 18 || a[1] != 4 {
		t.Errorf("got %x and %x", a, b)
	}
	if bytes.Equal(serverID(guestMAC).ToBytes(), serverID(mac.Addr{2, 5: 1}).ToBytes()) {
		t.Error("two guests have one server")
	}
}
