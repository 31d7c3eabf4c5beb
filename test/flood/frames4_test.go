package flood_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Where things are in a frame of IPv4 and in a DHCP message.
const (
	ipAt      = podtest.EthernetLen
	udpAt     = ipAt + podtest.IPv4Len
	optionsAt = 240
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// hostile4 does harm by DHCPv4.
type hostile4 struct {
	hostile
	address net.IP // the guest's own
}

// kinds4 are all the ways to do harm by IPv4. There is no DHCPDECLINE of the guest's
// own address among them: who declines waits, by RFC 2131 §3.1, and is to.
func kinds4(_ *testing.T, s *server) kinds {
	h := hostile4{newHostile(s.mac), s.pod.IPv4.Addr().AsSlice()}
	return join(map[string]kinds{
		"DHCP":    h.messages(),
		"message": h.otherMessages(func() []byte { return h.request().ToBytes() }, optionsAt, h.datagram),
		"packet":  h.packets(),
		"frame":   h.otherFrames(h.good),
	})
}

// messages are in good frames.
func (h hostile4) messages() kinds {
	return kinds{
		"discover": func() []byte { return h.frame(h.message(dhcpv4.MessageTypeDiscover)) },
		"request":  h.good,
		"stale request": func() []byte {
			return h.frame(h.message(dhcpv4.MessageTypeRequest, dhcpv4.OptRequestedIPAddress(h.ip())))
		},
		"inform":        func() []byte { return h.frame(h.message(dhcpv4.MessageTypeInform)) },
		"unknown type":  func() []byte { return h.frame(h.message(dhcpv4.MessageType(9 + h.random.IntN(200)))) },
		"forged giaddr": func() []byte { m := h.request(); m.GatewayIPAddr = h.ip(); return h.frame(m) },
		"forged ciaddr": func() []byte { m := h.request(); m.ClientIPAddr = h.ip(); return h.frame(m) },
		"forged chaddr": func() []byte { m := h.request(); m.ClientHWAddr = h.bytes(6); return h.frame(m) },
		"forged server": func() []byte { return h.frame(h.request(dhcpv4.OptServerIdentifier(h.ip()))) },
		"reply":         func() []byte { m := h.request(); m.OpCode = dhcpv4.OpcodeBootReply; return h.frame(m) },
	}
}

// packets are what becomes of good ones.
func (h hostile4) packets() kinds {
	return kinds{
		"first fragment":   func() []byte { return h.fragment(0x2000) },
		"later fragment":   func() []byte { return h.fragment(uint16(1 + h.random.IntN(1000))) },
		"bad IP checksum":  func() []byte { return h.flip(h.good(), ipAt+10) },
		"bad UDP checksum": func() []byte { return h.flip(h.good(), udpAt+6) },
		"bad IP length":    func() []byte { return h.flip(h.good(), ipAt+2) },
		"bad UDP length":   func() []byte { return h.flip(h.good(), udpAt+4) },
		"bad IP header":    func() []byte { return h.flip(h.good(), ipAt) },
	}
}

func (h hostile4) ip() net.IP { return h.bytes(4) }

func (h hostile4) message(typ dhcpv4.MessageType, options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: h.mac,
		TransactionID: dhcpv4.TransactionID(h.bytes(4)), Options: dhcpv4.OptionsFromList(options...),
	}
	m.UpdateOption(dhcpv4.OptMessageType(typ))
	m.UpdateOption(dhcpv4.OptHostName(string(h.bytes(h.random.IntN(255)))))
	return m
}

// request is one for the guest's address.
func (h hostile4) request(options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	return h.message(dhcpv4.MessageTypeRequest, append(options, dhcpv4.OptRequestedIPAddress(h.address))...)
}

func (h hostile4) good() []byte { return h.frame(h.request()) }

func (h hostile4) frame(m *dhcpv4.DHCPv4) []byte { return h.datagram(m.ToBytes()) }

func (h hostile4) datagram(message []byte) []byte {
	return podtest.UDPFrame(h.mac, broadcast,
		netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.MustParseAddrPort("255.255.255.255:67"), message)
}

// fragment gives a good frame flags and a fragment offset, and the checksum
// that fits, by RFC 1624.
func (h hostile4) fragment(field uint16) []byte {
	b := h.good()
	binary.BigEndian.PutUint16(b[ipAt+6:], field)
	sum := uint32(^binary.BigEndian.Uint16(b[ipAt+10:])) + uint32(field)
	binary.BigEndian.PutUint16(b[ipAt+10:], ^uint16(sum>>16+sum))
	return b
}
