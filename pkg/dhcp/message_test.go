package dhcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// encode is the message as the server would send it.
func encode(t *testing.T, l Lease, req *dhcpv4.DHCPv4) ([]byte, []uint8) {
	t.Helper()
	reply, err := l.Reply(req)
	if err != nil {
		t.Fatal(err)
	}
	return appendMessage(nil, reply, req.Options[optParameters], maxMessage(req, 1500))
}

// TestGoldenReplies keeps what goes onto the wire: the frame's bytes and what
// another implementation reads in them.
func TestGoldenReplies(t *testing.T) {
	boot := testLease()
	boot.TFTPServer, boot.BootFiles = "10.0.0.5", netboot.Files{{Name: "ipxe.efi"}}
	linux := dhcpv4.OptParameterRequestList(linuxList...)
	for _, c := range []struct {
		name  string
		lease Lease
		req   *dhcpv4.DHCPv4
	}{
		{"offer-flannel", testLease(), discover(linux)},
		{"ack-calico", calicoLease(), request(linux, dhcpv4.OptServerIdentifier([]byte{169, 254, 1, 1}), dhcpv4.OptRequestedIPAddress(address))},
		{"nak", testLease(), request(dhcpv4.OptRequestedIPAddress(stale), generic(optClientID, 1, 2, 0x42, 0x0a, 0xf4, 1, 7))},
		{"inform", testLease(), with(message(dhcpv4.MessageTypeInform, linux), ciaddr(address))},
		{"boot", boot, with(discover(), func(m *dhcpv4.DHCPv4) { m.SetBroadcast() })},
		{"overload", manyRoutes(30), discover(linux)},
		{"long-option", manyRoutes(40), discover(linux, generic(optMaxMessageSize, 0x05, 0xdc))},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, err := c.lease.Reply(c.req)
			if err != nil {
				t.Fatal(err)
			}
			frame, left := appendMessage(make([]byte, packet.UDP4Len), reply, c.req.Options[optParameters], maxMessage(c.req, 1500))
			sealed(frame, reply, mac.Addr{0xfe, 1, 2, 3, 4, 5}, c.lease.Server)
			d, err := packet.ParseUDP4(frame, false)
			if err != nil {
				t.Fatalf("read own frame: %v", err)
			}
			read, err := dhcpv4.FromBytes(d.Payload)
			if err != nil {
				t.Fatalf("another implementation cannot read it: %v", err)
			}
			golden(t, c.name+".golden", fmt.Sprintf("to %v %v, %d bytes, left out %v\n\n%s\n%s",
				net.HardwareAddr(d.DstMAC[:]), d.Dst.Addr(), len(frame), left, visible(read.Summary()), hex.Dump(frame)))
		})
	}
}

// visible keeps golden files text: the library prints an overloaded field as a name.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r > '~' {
			return '.'
		}
		return r
	}, s)
}

// manyRoutes is a lease whose classless static routes alone have 8 n bytes.
func manyRoutes(n int) Lease {
	l := testLease()
	l.Routes = nil
	for i := range n {
		l.Routes = append(l.Routes, Route{Destination: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24), Gateway: l.Router})
	}
	return l
}

func TestMaxMessage(t *testing.T) {
	for _, c := range []struct {
		option []byte
		mtu    int
		want   int
	}{
		{nil, 1500, 548},
		{[]byte{0x05, 0xdc}, 1500, 1472},
		{[]byte{0x05, 0xdc}, 1450, 1422},
		{[]byte{0xff, 0xff}, 9000, 1472},
		{[]byte{0x00, 0x10}, 1500, 548}, // less than each client must take
		{[]byte{0x05}, 1500, 548},       // malformed
		{nil, 100, 300},                 // no message is smaller
	} {
		m := discover()
		if c.option != nil {
			m.UpdateOption(generic(optMaxMessageSize, c.option...))
		}
		if got := maxMessage(m, c.mtu); got != c.want {
			t.Errorf("option %x, MTU %d: got %d, want %d", c.option, c.mtu, got, c.want)
		}
	}
}

// TestFit sends more and more through the least message a client takes: nothing
// is lost while there is room anywhere, nothing is ever too long, and what is
// left out is told.
func TestFit(t *testing.T) {
	overloaded, dropped := false, false
	for n := range 120 {
		l := manyRoutes(n)
		l.Search = []string{"default.svc.cluster.local", "a.example"}
		req := discover()
		wire, left := encode(t, l, req)
		if len(wire) > 548 || len(wire) < minMessage {
			t.Fatalf("%d routes: message has %d bytes", n, len(wire))
		}
		got, err := parseMessage(wire)
		if err != nil {
			t.Fatalf("%d routes: %v", n, err)
		}
		reply, err := l.Reply(req)
		if err != nil {
			t.Fatal(err)
		}
		for code, value := range reply.Options {
			isLeft := slices.Contains(left, code)
			if isLeft != !bytes.Equal(got.Options[code], value) {
				t.Errorf("%d routes: option %d: left out %v, got %x, want %x", n, code, isLeft, got.Options[code], value)
			}
		}
		for _, code := range []uint8{optMessageType, optServerID, optLeaseTime, optSubnetMask} {
			if slices.Contains(left, code) {
				t.Errorf("%d routes: option %d left out", n, code)
			}
		}
		_, has := got.Options[optOverload]
		overloaded = overloaded || has
		dropped = dropped || len(left) > 0
	}
	if !overloaded || !dropped {
		t.Errorf("overloaded %v, dropped %v: the test does not reach far enough", overloaded, dropped)
	}
}

// TestOverloadLeavesBootFields: a PXE client reads sname and file.
func TestOverloadLeavesBootFields(t *testing.T) {
	l := manyRoutes(40)
	l.BootFiles = netboot.Files{{Name: "ipxe.efi"}}
	wire, left := encode(t, l, discover())
	got, err := dhcpv4.FromBytes(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got.BootFileName != "ipxe.efi" || got.Options[optOverload][0] != 2 {
		t.Errorf("file is %q, overload is %v, left out %v", got.BootFileName, got.Options[optOverload], left)
	}
	l.TFTPServer = "boot.example"
	wire, left = encode(t, l, discover())
	if got, err = dhcpv4.FromBytes(wire); err != nil {
		t.Fatal(err)
	}
	if _, ok := got.Options[optOverload]; ok || got.ServerHostName != "boot.example" || len(left) == 0 {
		t.Errorf("overload %v, sname %q, left out %v", ok, got.ServerHostName, left)
	}
}

// TestRequestOverload: a client may use sname and file for options too.
func TestRequestOverload(t *testing.T) {
	wire := discover(generic(optOverload, 3)).ToBytes()
	copy(wire[fileAt:], []byte{optHostname, 4, 'v', 'm', '-', 'b', optEnd})
	copy(wire[snameAt:], []byte{optVendorClass, 3, 'a', 'b', 'c', optEnd})
	m, err := parseMessage(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got := clientOf(m); got.Hostname != "vm-b" || got.VendorClass != "abc" {
		t.Errorf("got %+v", got)
	}
	copy(wire[fileAt:], []byte{optHostname, 200, 'v'})
	if _, err := parseMessage(wire); err == nil {
		t.Error("an option beyond the field is taken")
	}
}

func TestNoAllocationInEncoding(t *testing.T) {
	req := discover(dhcpv4.OptParameterRequestList(linuxList...))
	reply, err := testLease().Reply(req)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, packet.EthernetLen+maxDatagram)
	if n := testing.AllocsPerRun(100, func() {
		appendMessage(buf[:packet.UDP4Len], reply, req.Options[optParameters], 548)
	}); n > 1 {
		t.Errorf("%v allocations, want at most 1", n)
	}
}

// messageWith is a raw message with these options, for what a library would not write.
func messageWith(options string) []byte {
	m := discover().ToBytes()[:optionsAt]
	return append(m, options...)
}

func TestParseMessageMalformed(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":            nil,
		"half a header":    make([]byte, 100),
		"no cookie":        make([]byte, 300),
		"hardware address": append([]byte{1, 1, 17}, discover().ToBytes()[3:]...),
		"option too long":  messageWith("\x35\x01\x01\x0c\x20abc\xff"),
		"length is missed": messageWith("\x35\x01\x01\x0c"),
	} {
		if m, err := parseMessage(b); err == nil {
			t.Errorf("%s: taken as %v", name, m)
		}
	}
}

// TestParseMessageForgives what some clients send and what does no harm.
func TestParseMessageForgives(t *testing.T) {
	for name, b := range map[string][]byte{
		"no end":           messageWith("\x35\x01\x01"),
		"behind the end":   messageWith("\x35\x01\x01\xffgarbage"),
		"padding between":  messageWith("\x00\x00\x35\x01\x01\x00\xff"),
		"type in two":      messageWith("\x35\x00\x35\x01\x01\xff"),
		"sname without 0":  append(append(discover().ToBytes()[:snameAt:snameAt], strings.Repeat("s", 64)...), discover().ToBytes()[fileAt:]...),
		"nothing but type": messageWith("\x35\x01\x01\xff"),
	} {
		if m, err := parseMessage(b); err != nil || messageType(m) != dhcpv4.MessageTypeDiscover {
			t.Errorf("%s: got %v and error %v", name, m, err)
		}
	}
}

// TestProbe: the server knows the question of a check, and the check the answer.
func TestProbe(t *testing.T) {
	u, err := packet.ParseUDP4(probe.Discover(guestMAC, xid), false)
	if err != nil {
		t.Fatal(err)
	}
	req, err := parseMessage(u.Payload)
	if err != nil || !probe.IsDiscover(req) || probe.IsDiscover(discover()) || u.SrcMAC != guestMAC || req.TransactionID != xid {
		t.Fatalf("not recognised: %v, %v", req, err)
	}
	reply, err := testLease().Reply(req)
	if err != nil {
		t.Fatal(err)
	}
	answer, left := appendMessage(make([]byte, packet.UDP4Len), reply, nil, maxMessage(req, 1500))
	sealed(answer, reply, mac.Addr{2}, testLease().Server)
	got, err := probe.ParseDHCP(answer)
	if err != nil || len(left) > 0 || !got.YourIPAddr.Equal(address) || got.TransactionID != xid {
		t.Errorf("got %v, %v, left out %v", got, err, left)
	}
}

func FuzzReply(f *testing.F) {
	f.Add(discover().ToBytes())
	f.Add(request(dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address)).ToBytes())
	f.Add(with(request(), ciaddr(stale)).ToBytes())
	f.Add(discover(generic(optOverload, 3), generic(optParameters, 121, 249, 3)).ToBytes())
	f.Add(messageWith(strings.Repeat("\x3d\xff", 3) + "\xff"))
	r, _, err := manyRoutes(50).compile()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(tt *testing.T, b []byte) {
		req, err := parseMessage(b)
		if err != nil {
			return
		}
		if name := clientOf(req).Hostname; name != serve.Printable([]byte(name)) {
			tt.Fatal("hostname cannot be printed")
		}
		reply, err := r.reply(req)
		if err != nil {
			return
		}
		limit := maxMessage(req, 1500)
		wire, left := appendMessage(make([]byte, packet.UDP4Len), reply, req.Options[optParameters], limit)
		if n := len(wire) - packet.UDP4Len; n > limit {
			tt.Fatalf("%d bytes, limit %d", n, limit)
		}
		sealed(wire, reply, mac.Addr{2}, r.lease.Server)
		got, _, err := readReply(wire)
		if err != nil {
			tt.Fatalf("own reply is not one: %v", err)
		}
		for code, value := range reply.Options {
			if !slices.Contains(left, code) && !bytes.Equal(got.Options[code], value) {
				tt.Fatalf("option %d is %x, want %x", code, got.Options[code], value)
			}
		}
		if binary.BigEndian.Uint32(got.TransactionID[:]) != binary.BigEndian.Uint32(req.TransactionID[:]) {
			tt.Fatal("not the request's transaction")
		}
	})
}
