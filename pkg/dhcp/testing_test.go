package dhcp

import (
	"bytes"
	"errors"
	"flag"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	guestMAC = mac.Addr{0x02, 0x42, 0x0a, 0xf4, 0x01, 0x07}
	xid      = dhcpv4.TransactionID{0xca, 0xfe, 0x00, 0x01}

	address = net.IPv4(10, 244, 1, 7).To4()
	stale   = net.IPv4(10, 244, 9, 9).To4()
	server  = net.IPv4(10, 244, 1, 1).To4()
	foreign = net.IPv4(10, 244, 1, 2).To4()
)

// linuxList is what dhclient on Debian asks for, and 119, 249.
var linuxList = []dhcpv4.OptionCode{
	dhcpv4.GenericOptionCode(1), dhcpv4.GenericOptionCode(28), dhcpv4.GenericOptionCode(2),
	dhcpv4.GenericOptionCode(3), dhcpv4.GenericOptionCode(15), dhcpv4.GenericOptionCode(6),
	dhcpv4.GenericOptionCode(119), dhcpv4.GenericOptionCode(12), dhcpv4.GenericOptionCode(26),
	dhcpv4.GenericOptionCode(121), dhcpv4.GenericOptionCode(42),
}

// testLease is what flannel gives a pod.
func testLease() Lease {
	gateway := netip.MustParseAddr("10.244.1.1")
	return Lease{
		MAC:     guestMAC,
		Address: netip.MustParsePrefix("10.244.1.7/24"),
		Server:  gateway,
		Router:  gateway,
		Routes: []Route{
			{Destination: netip.MustParsePrefix("10.244.0.0/16"), Gateway: gateway},
			{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway},
		},
		DNS:      []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Search:   []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
		MTU:      1450,
		Hostname: "vm-a",
	}
}

// calicoLease has a /32 and an on-link gateway.
func calicoLease() Lease {
	gateway := netip.MustParseAddr("169.254.1.1")
	l := testLease()
	l.Address, l.Server, l.Router = netip.MustParsePrefix("10.244.1.7/32"), gateway, gateway
	l.Routes = []Route{
		{Destination: netip.PrefixFrom(gateway, 32)},
		{Destination: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gateway},
	}
	l.Duration = time.Hour
	return l
}

// message is one from the guest.
func message(typ dhcpv4.MessageType, options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootRequest,
		HWType:        1,
		TransactionID: xid,
		ClientIPAddr:  net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		ClientHWAddr: guestMAC[:],
		Options:      dhcpv4.OptionsFromList(options...),
	}
	m.UpdateOption(dhcpv4.OptMessageType(typ))
	return m
}

func discover(options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeDiscover, options...)
}

func request(options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	return message(dhcpv4.MessageTypeRequest, options...)
}

func generic(code uint8, value ...byte) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value)
}

// readReply reads a server's message from a frame, whose memory it does not share.
func readReply(frame []byte) (*dhcpv4.DHCPv4, packet.UDP, error) {
	d, err := packet.ParseUDP4(bytes.Clone(frame), false)
	if err != nil {
		return nil, d, err
	}
	m, err := parseMessage(d.Payload)
	if err == nil && (m.OpCode != dhcpv4.OpcodeBootReply || d.Dst.Port() != clientPort) {
		err = errors.New("not a reply")
	}
	return m, d, err
}

// sealed makes a frame of a reply of which the first bytes are free.
func sealed(b []byte, m *dhcpv4.DHCPv4, source mac.Addr, server netip.Addr) {
	d := destination(m)
	d.SrcMAC, d.Src = source, netip.AddrPortFrom(server, serverPort)
	packet.SealUDP4(b, d)
}

// golden compares with a file under testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	podtest.Golden(t, name, got, *update)
}
