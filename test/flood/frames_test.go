package flood_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Where things are in a frame and in a DHCP message.
const (
	ipAt      = podtest.EthernetLen
	udpAt     = ipAt + podtest.IPv4Len
	messageAt = udpAt + podtest.UDPLen
	optionsAt = 240
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// hostile makes the frames of a guest that means harm.
type hostile struct {
	mac     net.HardwareAddr
	address net.IP // the guest's own
	random  *rand.Rand
}

// kinds are all the ways to do harm. There is no DHCPDECLINE of the guest's own
// address among them: who declines waits, by RFC 2131 §3.1, and is to.
func (h hostile) kinds() map[string]func() []byte {
	return map[string]func() []byte{
		"discover": func() []byte { return h.frame(h.message(dhcpv4.MessageTypeDiscover)) },
		"request":  func() []byte { return h.frame(h.request()) },
		"stale request": func() []byte {
			return h.frame(h.message(dhcpv4.MessageTypeRequest, dhcpv4.OptRequestedIPAddress(h.ip())))
		},
		"inform":           func() []byte { return h.frame(h.message(dhcpv4.MessageTypeInform)) },
		"unknown type":     func() []byte { return h.frame(h.message(dhcpv4.MessageType(9 + h.random.IntN(200)))) },
		"forged giaddr":    func() []byte { m := h.request(); m.GatewayIPAddr = h.ip(); return h.frame(m) },
		"forged ciaddr":    func() []byte { m := h.request(); m.ClientIPAddr = h.ip(); return h.frame(m) },
		"forged chaddr":    func() []byte { m := h.request(); m.ClientHWAddr = h.bytes(6); return h.frame(m) },
		"forged server":    func() []byte { return h.frame(h.request(dhcpv4.OptServerIdentifier(h.ip()))) },
		"forged source":    h.forgedSource,
		"reply":            func() []byte { m := h.request(); m.OpCode = dhcpv4.OpcodeBootReply; return h.frame(m) },
		"random payload":   func() []byte { return h.datagram(h.bytes(h.random.IntN(1400))) },
		"random options":   h.randomOptions,
		"random ethernet":  func() []byte { return append(slices.Clone(h.head()), h.bytes(h.random.IntN(1486))...) },
		"truncated":        h.truncated,
		"truncated, whole": func() []byte { m := h.request().ToBytes(); return h.datagram(m[:h.random.IntN(len(m))]) },
		"oversized":        func() []byte { return h.datagram(append(h.request().ToBytes(), h.bytes(1100)...)) },
		"jumbo":            func() []byte { return h.datagram(append(h.request().ToBytes(), h.bytes(8000)...)) },
		"first fragment":   func() []byte { return h.fragment(0x2000) },
		"later fragment":   func() []byte { return h.fragment(uint16(1 + h.random.IntN(1000))) },
		"bad IP checksum":  func() []byte { return h.flip(ipAt + 10) },
		"bad UDP checksum": func() []byte { return h.flip(udpAt + 6) },
		"bad IP length":    func() []byte { return h.flip(ipAt + 2) },
		"bad UDP length":   func() []byte { return h.flip(udpAt + 4) },
		"bad IP header":    func() []byte { return h.flip(ipAt) },
		"VLAN":             func() []byte { return h.tagged(0x8100) },
		"provider VLAN":    func() []byte { return h.tagged(0x88a8) },
	}
}

func (h hostile) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(h.random.Uint32())
	}
	return b
}

func (h hostile) ip() net.IP { return h.bytes(4) }

func (h hostile) message(typ dhcpv4.MessageType, options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: 1, ClientHWAddr: h.mac,
		TransactionID: dhcpv4.TransactionID(h.bytes(4)), Options: dhcpv4.OptionsFromList(options...),
	}
	m.UpdateOption(dhcpv4.OptMessageType(typ))
	m.UpdateOption(dhcpv4.OptHostName(string(h.bytes(h.random.IntN(255)))))
	return m
}

// request is one for the guest's address.
func (h hostile) request(options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	return h.message(dhcpv4.MessageTypeRequest, append(options, dhcpv4.OptRequestedIPAddress(h.address))...)
}

func (h hostile) frame(m *dhcpv4.DHCPv4) []byte { return h.datagram(m.ToBytes()) }

func (h hostile) datagram(payload []byte) []byte {
	return podtest.UDPFrame(h.mac, broadcast,
		netip.AddrPortFrom(netip.IPv4Unspecified(), 68), netip.MustParseAddrPort("255.255.255.255:67"), payload)
}

// head is the frame's Ethernet header.
func (h hostile) head() []byte { return h.datagram(nil)[:podtest.EthernetLen] }

func (h hostile) forgedSource() []byte {
	b := h.frame(h.request())
	copy(b[6:12], h.bytes(6))
	b[6] &^= 1 // not a group's
	return b
}

// randomOptions are well-formed up to the options.
func (h hostile) randomOptions() []byte {
	return h.datagram(append(h.request().ToBytes()[:optionsAt], h.bytes(h.random.IntN(1000))...))
}

func (h hostile) truncated() []byte {
	b := h.frame(h.request())
	return b[:podtest.EthernetLen+h.random.IntN(len(b)-podtest.EthernetLen)]
}

// flip makes a byte of a good frame another.
func (h hostile) flip(at int) []byte {
	b := h.frame(h.request())
	b[at] ^= byte(1 + h.random.IntN(255))
	return b
}

// fragment gives a good frame flags and a fragment offset, and the checksum
// that fits, by RFC 1624.
func (h hostile) fragment(field uint16) []byte {
	b := h.frame(h.request())
	binary.BigEndian.PutUint16(b[ipAt+6:], field)
	sum := uint32(^binary.BigEndian.Uint16(b[ipAt+10:])) + uint32(field)
	binary.BigEndian.PutUint16(b[ipAt+10:], ^uint16(sum>>16+sum))
	return b
}

func (h hostile) tagged(protocol uint16) []byte {
	b := h.frame(h.request())
	tag := binary.BigEndian.AppendUint16(nil, protocol)
	tag = binary.BigEndian.AppendUint16(tag, uint16(h.random.IntN(4096)))
	return slices.Insert(b, 12, tag...)
}
