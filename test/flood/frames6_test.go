package flood_test

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Where things are in a frame of IPv6.
const (
	ip6At      = podtest.EthernetLen
	payload6At = ip6At + podtest.IPv6Len
)

// Ports of DHCPv6, and the type of a router solicitation.
const (
	client6, server6   = 546, 547
	routerSolicitation = 133
)

var (
	allServers = netip.MustParseAddr("ff02::1:2") // of DHCPv6
	allRouters = netip.IPv6LinkLocalAllRouters()
	nobody     = netip.IPv6Unspecified()
	// linkLocal is the guest's, who may have any but the router's.
	linkLocal = netip.MustParseAddr("fe80::1234")
)

// datagram6 is a DHCPv6 message in a frame of the guest's.
func datagram6(mac net.HardwareAddr, from, to netip.AddrPort, message []byte) []byte {
	return podtest.UDPFrame(mac, groupMAC(to.Addr()), from, to, message)
}

// solicitation6 is a frame with a router solicitation of the guest's, and what
// follows its checksum.
func solicitation6(mac net.HardwareAddr, from, to netip.Addr, body []byte) []byte {
	return podtest.ICMPv6Frame(mac, groupMAC(to), from, to, routerSolicitation, 255, body)
}

// groupMAC is the Ethernet address of a group (RFC 2464 §7). For a single
// address it is nobody's, which the tap does not mind.
func groupMAC(group netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x33, 0x33}, group.AsSlice()[12:]...)
}

// message6 is a DHCPv6 message of the guest's.
func message6(mac net.HardwareAddr, typ dhcpv6.MessageType, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: typ}
	duid := append([]byte{0, byte(dhcpv6.DUID_LL), 0, 1}, mac...)
	m.Options.Options = append(dhcpv6.Options{option6(dhcpv6.OptionClientID, duid...)}, options...)
	return m
}

func option6(code dhcpv6.OptionCode, value ...byte) dhcpv6.Option {
	return &dhcpv6.OptionGeneric{OptionCode: code, OptionData: value}
}

// hostile6 makes frames of IPv6.
type hostile6 struct {
	hostile
	address, router netip.Addr // the guest's own global one, its router's
	serverID        []byte
}

// kinds6 are all the ways to do harm by IPv6.
func kinds6(t *testing.T, s *server) kinds {
	t.Helper()
	h := hostile6{newHostile(s.mac), s.pod.IPv6.Addr(), s.pod.IPv6Gateway, s.serverID(t)}
	message := func() []byte { return h.request().ToBytes() }
	datagram := func(from netip.Addr) []byte { return h.sent(from, allServers, h.request()) }
	asking := func(from netip.Addr) []byte { return h.solicit(from, h.solicitation()) }
	return join(map[string]kinds{
		"DHCPv6":          h.messages(),
		"message":         h.otherMessages(message, messageHead, func(b []byte) []byte { return h.datagram(client6, server6, b) }),
		"datagram":        h.otherPackets(datagram, 6),
		"datagram, frame": h.otherFrames(func() []byte { return datagram(linkLocal) }),
		"ND":              h.solicitations(),
		"RS":              h.otherMessages(h.solicitation, solicitationHead, func(b []byte) []byte { return h.solicit(linkLocal, b) }),
		"RS, packet":      h.otherPackets(asking, 2),
		"RS, frame":       h.otherFrames(func() []byte { return asking(linkLocal) }),
	})
}

// otherPackets are what becomes of good ones, which come from an address and
// have a checksum at an offset.
func (h hostile6) otherPackets(from func(netip.Addr) []byte, checksumAt int) kinds {
	good := func() []byte { return from(linkLocal) }
	return kinds{
		"own address":      func() []byte { return from(h.address) },
		"link-local":       func() []byte { return from(h.ip(0xfe, 0x80, 0, 0, 0, 0, 0, 0)) },
		"other address":    func() []byte { return from(h.ip()) },
		"router's address": func() []byte { return from(h.router) },
		"no address":       func() []byte { return from(nobody) },
		"group's address":  func() []byte { return from(allRouters) },
		"loopback":         func() []byte { return from(netip.IPv6Loopback()) },
		"mapped IPv4":      func() []byte { return from(netip.MustParseAddr("::ffff:192.0.2.1")) },

		"hop limit":     func() []byte { return h.flip(good(), ip6At+7) },
		"bad version":   func() []byte { return h.flip(good(), ip6At) },
		"bad length":    func() []byte { return h.flip(good(), ip6At+4+h.random.IntN(2)) },
		"bad header":    func() []byte { return h.flip(good(), ip6At+6) },
		"bad checksum":  func() []byte { return h.flip(good(), payload6At+checksumAt) },
		"zero checksum": func() []byte { b := good(); clear(b[payload6At+checksumAt:][:2]); return b },

		"first fragment":      func() []byte { b := good(); return podtest.Fragment6(b, 0, 8, b[ip6At+6]) },
		"later fragment":      func() []byte { b := good(); return podtest.Fragment6(b, 8, len(b), b[ip6At+6]) },
		"one fragment":        func() []byte { return podtest.BehindHeaders(good(), unix.IPPROTO_FRAGMENT) },
		"hop-by-hop":          func() []byte { return podtest.BehindHeaders(good(), unix.IPPROTO_HOPOPTS) },
		"destination options": func() []byte { return podtest.BehindHeaders(good(), unix.IPPROTO_DSTOPTS) },
		"many headers": func() []byte {
			return podtest.BehindHeaders(good(), bytes.Repeat([]byte{unix.IPPROTO_DSTOPTS}, h.random.IntN(100))...)
		},
	}
}

// ip is a random address with a prefix.
func (h hostile6) ip(prefix ...byte) netip.Addr {
	return netip.AddrFrom16([16]byte(append(prefix, h.bytes(16-len(prefix))...)))
}
