package dhcp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

const (
	offer = dhcpv4.MessageTypeOffer
	ack   = dhcpv4.MessageTypeAck
	nak   = dhcpv4.MessageTypeNak
)

func with(m *dhcpv4.DHCPv4, change func(*dhcpv4.DHCPv4)) *dhcpv4.DHCPv4 {
	change(m)
	return m
}

func ciaddr(ip net.IP) func(*dhcpv4.DHCPv4) {
	return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = ip }
}

// TestReplyMatrix is RFC 2131's table for a server: what is answered with what,
// and where the answer goes (§4.1).
func TestReplyMatrix(t *testing.T) {
	requested, serverID := dhcpv4.OptRequestedIPAddress, dhcpv4.OptServerIdentifier
	broadcast := func(m *dhcpv4.DHCPv4) { m.SetBroadcast() }
	relayed := func(m *dhcpv4.DHCPv4) { m.GatewayIPAddr = foreign }
	toAll, toGuest, toStatic := "ff:ff:ff:ff:ff:ff 255.255.255.255:68", guestMAC.String()+" 10.244.1.7:68", guestMAC.String()+" 10.244.1.2:68"

	for _, c := range []struct {
		name string
		req  *dhcpv4.DHCPv4
		want dhcpv4.MessageType
		to   string
		why  error
	}{
		{name: "discover", req: discover(), want: offer, to: toGuest},
		{name: "discover, broadcast flag", req: with(discover(), broadcast), want: offer, to: toAll},
		{name: "discover, asks for our address", req: discover(requested(address)), want: offer, to: toGuest},
		{name: "discover, asks for another address", req: discover(requested(stale)), want: offer, to: toGuest},
		{name: "discover, ciaddr filled in", req: with(discover(), ciaddr(stale)), want: offer, to: toGuest},
		{name: "discover, rapid commit", req: discover(generic(optRapidCommit)), want: ack, to: toGuest},

		{name: "selecting", req: request(serverID(server), requested(address)), want: ack, to: toGuest},
		{name: "selecting, broadcast flag", req: with(request(serverID(server), requested(address)), broadcast), want: ack, to: toAll},
		{name: "selecting, another server", req: request(serverID(foreign), requested(address)), why: lease.DropOtherServer},
		{name: "selecting, another server's address", req: request(serverID(foreign), requested(stale)), why: lease.DropOtherServer},
		{name: "selecting, another address", req: request(serverID(server), requested(stale)), want: nak, to: toAll},
		{name: "selecting, no address", req: request(serverID(server)), why: lease.DropNoAddress},
		{name: "selecting, ciaddr filled in", req: with(request(serverID(server), requested(address)), ciaddr(address)), want: ack, to: toGuest},
		{name: "selecting, another ciaddr", req: with(request(serverID(server), requested(address)), ciaddr(stale)), want: nak, to: toAll},

		{name: "init-reboot", req: request(requested(address)), want: ack, to: toGuest},
		{name: "init-reboot, broadcast flag", req: with(request(requested(address)), broadcast), want: ack, to: toAll},
		{name: "init-reboot, stale", req: request(requested(stale)), want: nak, to: toAll},
		{name: "init-reboot, stale, same subnet", req: request(requested(foreign)), want: nak, to: toAll},

		{name: "renewing or rebinding", req: with(request(), ciaddr(address)), want: ack, to: toGuest},
		{name: "renewing, broadcast flag", req: with(with(request(), ciaddr(address)), broadcast), want: ack, to: toGuest},
		{name: "renewing with server identifier", req: with(request(serverID(server)), ciaddr(address)), want: ack, to: toGuest},
		{name: "renewing, stale", req: with(request(), ciaddr(stale)), want: nak, to: toAll},
		{name: "renewing, another server", req: with(request(serverID(foreign)), ciaddr(address)), why: lease.DropOtherServer},

		{name: "request for nothing", req: request(), why: lease.DropNoAddress},
		{name: "request, short address", req: request(generic(optRequestedIP, 10, 244)), why: lease.DropMalformed},
		{name: "request, long server identifier", req: request(generic(optServerID, 10, 244, 1, 1, 0), requested(address)), why: lease.DropMalformed},

		{name: "inform", req: with(message(dhcpv4.MessageTypeInform), ciaddr(address)), want: ack, to: toGuest},
		{name: "inform, static address", req: with(message(dhcpv4.MessageTypeInform), ciaddr(foreign)), want: ack, to: toStatic},
		{name: "inform without ciaddr", req: message(dhcpv4.MessageTypeInform), want: ack, to: toAll},

		{name: "decline", req: message(dhcpv4.MessageTypeDecline, serverID(server), requested(address)), why: errNoReply},
		{name: "decline, another server", req: message(dhcpv4.MessageTypeDecline, serverID(foreign), requested(address)), why: lease.DropOtherServer},
		{name: "decline, another address", req: message(dhcpv4.MessageTypeDecline, serverID(server), requested(stale)), why: lease.DropNoAddress},
		{name: "release", req: with(message(dhcpv4.MessageTypeRelease, serverID(server)), ciaddr(address)), why: errNoReply},
		{name: "release, another server", req: with(message(dhcpv4.MessageTypeRelease, serverID(foreign)), ciaddr(address)), why: lease.DropOtherServer},
		{name: "release, another address", req: with(message(dhcpv4.MessageTypeRelease, serverID(server)), ciaddr(stale)), why: lease.DropNoAddress},
		{name: "release, bad server identifier", req: with(message(dhcpv4.MessageTypeRelease, generic(optServerID, 1)), ciaddr(address)), why: lease.DropMalformed},

		{name: "relayed", req: with(discover(), relayed), why: lease.DropRelayed},
		{name: "another client", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 9} }), why: lease.DropOtherClient},
		{name: "long hardware address", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = make(net.HardwareAddr, 16) }), why: lease.DropNotRequest},
		{name: "no hardware address", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = nil }), why: lease.DropNotRequest},
		{name: "not Ethernet", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.HWType = 6 }), why: lease.DropNotRequest},
		{name: "a reply", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootReply }), why: lease.DropNotRequest},
		{name: "BOOTP", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionDHCPMessageType) }), why: lease.DropMalformed},
		{name: "two bytes of type", req: with(discover(), func(m *dhcpv4.DHCPv4) { m.UpdateOption(generic(optMessageType, 1, 1)) }), why: lease.DropMalformed},
		{name: "offer from a client", req: message(offer), why: lease.DropUnexpectedType},
		{name: "ack from a client", req: message(ack), why: lease.DropUnexpectedType},
		{name: "nak from a client", req: message(nak), why: lease.DropUnexpectedType},
		{name: "lease query", req: message(dhcpv4.MessageType(10)), why: lease.DropUnexpectedType},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := testLease().Reply(c.req)
			if !errors.Is(err, c.why) {
				t.Fatalf("got error %v, want %v", err, c.why)
			}
			if c.why != nil {
				if got != nil {
					t.Fatalf("got both an error and %v", got)
				}
				return
			}
			if messageType(got) != c.want {
				t.Fatalf("got %v, want %v", messageType(got), c.want)
			}
			if to := fmt.Sprint(destination(got).DstMAC, " ", destination(got).Dst); to != c.to {
				t.Errorf("goes to %v, want %v", to, c.to)
			}
			checkReply(t, c.req, got)
		})
	}
}

// checkReply checks what holds for each reply: RFC 2131 §4.3.1, table 3.
func checkReply(t *testing.T, req, got *dhcpv4.DHCPv4) {
	t.Helper()
	typ, inform := messageType(got), messageType(req) == dhcpv4.MessageTypeInform
	if got.OpCode != dhcpv4.OpcodeBootReply || got.TransactionID != req.TransactionID || got.Flags != req.Flags ||
		got.ClientHWAddr.String() != req.ClientHWAddr.String() || got.HopCount != 0 || got.NumSeconds != 0 {
		t.Errorf("header does not answer the request: %v", got)
	}
	if !got.ServerIdentifier().Equal(server) {
		t.Errorf("server identifier is %v", got.ServerIdentifier())
	}
	_, hasTime := got.Options[optLeaseTime]
	if want := typ != nak && !inform; hasTime != want {
		t.Errorf("lease time present: %v, want %v", hasTime, want)
	}
	wantAddress := net.IPv4zero
	if typ != nak && !inform {
		wantAddress = address
	}
	if !got.YourIPAddr.Equal(wantAddress) {
		t.Errorf("yiaddr is %v, want %v", got.YourIPAddr, wantAddress)
	}
	wantCiaddr := net.IPv4zero
	if typ == ack && messageType(req) != dhcpv4.MessageTypeDiscover {
		wantCiaddr = req.ClientIPAddr
	}
	if !got.ClientIPAddr.Equal(wantCiaddr) {
		t.Errorf("ciaddr is %v, want %v", got.ClientIPAddr, wantCiaddr)
	}
	for _, code := range []uint8{optRequestedIP, optParameters, optMaxMessageSize} {
		if _, ok := got.Options[code]; ok {
			t.Errorf("option %d is in a reply", code)
		}
	}
	if typ == nak {
		for code := range got.Options {
			switch code {
			case optMessageType, optServerID, optMessage, optClientID:
			default:
				t.Errorf("option %d is in a NAK", code)
			}
		}
	}
}

func TestReplyToInvalidLease(t *testing.T) {
	got, err := Lease{}.Reply(discover())
	var why lease.DropReason
	if got != nil || err == nil || errors.As(err, &why) {
		t.Errorf("got %v and error %v, want what is wrong with the lease", got, err)
	}
}

func TestReplyOptions(t *testing.T) {
	list := func(codes ...uint8) dhcpv4.Option { return generic(optParameters, codes...) }
	finite := testLease()
	finite.Duration = 3600e9
	boot := testLease()
	boot.TFTPServer, boot.BootFiles = "10.0.0.5", netboot.Files{{Name: "pxelinux.0"}}
	none := testLease()
	none.Router, none.Routes, none.MTU, none.Search, none.DNS, none.Hostname = none.Address.Addr().Prev(), nil, 0, nil, nil, ""
	byHand := testLease()
	byHand.Options = []Option{{Code: 3}, {Code: 252, Value: []byte("http://a")}, {Code: 121, Value: []byte{0, 1, 2, 3, 4}}}

	for _, c := range []struct {
		name  string
		lease Lease
		req   *dhcpv4.DHCPv4
		want  string // codes in the order on the wire
	}{
		{"no list: all", testLease(), discover(), "53 54 51 1 121 3 6 12 15 26 119"},
		{"list: its order after the first ones", testLease(), discover(list(26, 6, 3, 1, 15)), "53 54 51 1 3 26 6 15 121"},
		{"list of what there is not", testLease(), discover(list(252, 44)), "53 54 51 1 3 121"},
		{"list with the routes", testLease(), discover(list(26, 6, 3, 121)), "53 54 51 1 121 26 6"},
		{"list with repeats", testLease(), discover(list(6, 6, 6, 53)), "53 54 51 1 3 6 121"},
		{"Windows asks for 121 and 249: no 3 then (RFC 3442)", testLease(), discover(list(1, 3, 6, 121, 249)), "53 54 51 1 121 6 249"},
		{"finite", finite, discover(list(6)), "53 54 51 58 59 1 3 6 121"},
		{"inform, finite, asks for the time", finite, with(message(dhcpv4.MessageTypeInform, list(51, 58, 59, 6)), ciaddr(address)), "53 54 1 3 6 121"},
		{"client identifier", testLease(), discover(list(6), generic(optClientID, 1, 2, 3)), "53 54 51 61 1 3 6 121"},
		{"client identifier in a NAK", testLease(), request(dhcpv4.OptRequestedIPAddress(stale), generic(optClientID, 9)), "53 54 61 56"},
		{"rapid commit", testLease(), discover(list(6), generic(optRapidCommit)), "53 54 51 1 3 6 80 121"},
		{"boot", boot, discover(list(6)), "53 54 51 1 3 6 66 67 121"},
		{"boot, asks for 150", boot, discover(list(150)), "53 54 51 1 3 150 66 67 121"},
		{"bare", none, discover(), "53 54 51 1 3"},
		{"by hand", byHand, discover(list(3, 249)), "53 54 51 1 249 121 252"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.lease.Reply(c.req)
			if err != nil {
				t.Fatal(err)
			}
			var codes []string
			for _, code := range inOrder(got.Options, c.req.Options[optParameters]) {
				codes = append(codes, strconv.Itoa(int(code)))
			}
			if s := strings.Join(codes, " "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

// Routes that a client does not ask for cost it nothing that it asks for.
func TestManyRoutes(t *testing.T) {
	l := testLease()
	for i := range 50 {
		l.Routes = append(l.Routes, Route{Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 20, byte(i), 0}), 24), Gateway: l.Router})
	}
	for name, c := range map[string]struct {
		list   []byte
		routes bool
	}{"asks for none": {[]byte{3, 6, 12, 15, 26, 119}, false}, "asks for them": {[]byte{3, 6, 12, 15, 26, 119, 121}, true}} {
		req := discover(generic(optParameters, c.list...))
		reply, err := l.Reply(req)
		if err != nil {
			t.Fatal(err)
		}
		_, left := appendMessage(nil, reply, c.list, maxMessage(req, maxDatagram))
		if slices.Contains(left, optRoutes) == c.routes || !c.routes && len(left) != 1 {
			t.Errorf("%s: left out %v", name, left)
		}
	}
}

// TestOptionTakenAway: an option that is set to nothing is in no reply, and what would
// replace it, or would follow from it, is as if it had never been.
func TestOptionTakenAway(t *testing.T) {
	for _, nothing := range [][]byte{nil, {}} {
		l := testLease()
		l.Options = []Option{{optRoutes, nothing}, {optDNS, nothing}}
		reply, err := l.Reply(discover(generic(optParameters, optRoutes, optRouter, optDNS, optRoutesMS)))
		if err != nil {
			t.Fatal(err)
		}
		for code, want := range map[uint8]bool{optRoutes: false, optRoutesMS: false, optDNS: false, optRouter: true, optSubnetMask: true} {
			if _, ok := reply.Options[code]; ok != want {
				t.Errorf("option %d is there: %v, want %v", code, ok, want)
			}
		}
	}
	l := testLease()
	l.Options = []Option{{Code: optRoutesMS}}
	reply, err := l.Reply(discover(generic(optParameters, optRoutesMS)))
	if _, ok := reply.Options[optRoutesMS]; err != nil || ok {
		t.Errorf("249 is sent though it was taken away: %v", err)
	}
}
