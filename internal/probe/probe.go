package ra

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// Neighbour solicitations and advertisements (RFC 4861 §4.3, §4.4).
const (
	typeNeighborSolicitation  = 135
	typeNeighborAdvertisement = 136
	neighborTargetAt          = 8
	neighborLen               = 24
	optTargetMAC              = 2
)

// ErrNotAdvertisement is returned for a frame that is not an advertisement of
// the kind, or not a valid one.
var ErrNotAdvertisement = errors.New("not an advertisement")

// SolicitationFrame is a whole Ethernet frame with a router solicitation as the
// guest with this MAC address would send it from its link-local address. A
// Server answers it like the guest's own and counts it.
func SolicitationFrame(guest net.HardwareAddr, from netip.Addr) []byte {
	m := make([]byte, solicitationLen)
	m[0] = typeSolicitation
	return discovery(guest, from, netip.IPv6LinkLocalAllRouters(), m)
}

// NeighborSolicitationFrame is a whole Ethernet frame in which the guest asks,
// from an address of its own, who has the target.
func NeighborSolicitationFrame(guest net.HardwareAddr, from, target netip.Addr) []byte {
	m := make([]byte, neighborTargetAt, neighborLen)
	m[0] = typeNeighborSolicitation
	a := target.As16()
	// The group of those who may have the target (RFC 4291 §2.7.1).
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
	return discovery(guest, from, group, append(m, a[:]...))
}

// discovery makes a frame of a solicitation, with the guest's MAC address for
// the answer.
func discovery(guest net.HardwareAddr, from, group netip.Addr, message []byte) []byte {
	frame := append(make([]byte, packet.Head6Len), message...)
	frame = append(frame, optSourceMAC, 1)
	frame = append(frame, guest...)
	packet.Seal6(frame, packet.Packet6{
		SrcMAC: packet.MACOf(guest), DstMAC: packet.MulticastMAC(group), Src: from, Dst: group,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: hopLimit,
	})
	return frame
}

// ParseAdvertisementFrame reads a router advertisement from a whole Ethernet
// frame, as the guest would get it, and returns the router. The error wraps
// ErrNotAdvertisement. The checks are those of RFC 4861 §6.1.2.
func ParseAdvertisementFrame(frame []byte) (router netip.Addr, err error) {
	p, err := parseDiscovery(frame, typeAdvertisement, headLen)
	if err != nil {
		return netip.Addr{}, err
	}
	if !p.Src.IsLinkLocalUnicast() {
		return netip.Addr{}, fmt.Errorf("%w: it comes from %v", ErrNotAdvertisement, p.Src)
	}
	return p.Src, nil
}

// ParseNeighborAdvertisementFrame reads a neighbour advertisement from a whole
// Ethernet frame, and returns who says to have which MAC address. The error
// wraps ErrNotAdvertisement. The checks are those of RFC 4861 §7.1.2; the answer
// to a question to all must have the MAC address (§7.2.4).
func ParseNeighborAdvertisementFrame(frame []byte) (target netip.Addr, mac net.HardwareAddr, err error) {
	p, err := parseDiscovery(frame, typeNeighborAdvertisement, neighborLen)
	if err != nil {
		return netip.Addr{}, nil, err
	}
	for rest := p.Payload[neighborLen:]; len(rest) > 0; {
		var option []byte
		option, rest, _ = nextOption(rest)
		if option[0] == optTargetMAC && len(option) == 8 {
			mac = slices.Clone(option[2:])
		}
	}
	target = netip.AddrFrom16([16]byte(p.Payload[neighborTargetAt:]))
	if target.IsMulticast() || !isHost(mac) {
		return netip.Addr{}, nil, fmt.Errorf("%w: %v is said to have %q", ErrNotAdvertisement, target, mac)
	}
	return target, mac, nil
}

// parseDiscovery reads a message of neighbour discovery of which all options
// have a length.
func parseDiscovery(frame []byte, kind byte, least int) (packet.Packet6, error) {
	p, err := packet.Parse6(frame, unix.IPPROTO_ICMPV6, false)
	switch {
	case err != nil:
		return p, fmt.Errorf("%w: %w", ErrNotAdvertisement, err)
	case p.HopLimit != hopLimit, len(p.Payload) < least, p.Payload[0] != kind, p.Payload[1] != 0:
		return p, ErrNotAdvertisement
	}
	for rest := p.Payload[least:]; len(rest) > 0; {
		var ok bool
		if _, rest, ok = nextOption(rest); !ok {
			return p, fmt.Errorf("%w: an option has no valid length", ErrNotAdvertisement)
		}
	}
	return p, nil
}

// nextOption cuts the first option (RFC 4861 §4.6) off. ok is false if its
// length is wrong.
func nextOption(b []byte) (option, rest []byte, ok bool) {
	if len(b) < 2 || b[1] == 0 || int(b[1])*8 > len(b) {
		return nil, nil, false
	}
	n := int(b[1]) * 8
	return b[:n], b[n:], true
}
