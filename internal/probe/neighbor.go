package probe

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Lengths of messages without their options (RFC 4861 §4).
const (
	routerSolicitationLen  = 8
	routerAdvertisementLen = 16
	neighborLen            = 24
	targetAt               = 8 // in those of neighbours
)

// RouterSolicitation is one as the guest with this MAC would send it.
func RouterSolicitation(guest mac.Addr, from netip.Addr) []byte {
	m := make([]byte, routerSolicitationLen)
	m[0] = packet.RouterSolicitation
	return solicitation(guest, from, netip.IPv6LinkLocalAllRouters(), m)
}

// NeighborSolicitation is one in which the guest asks, from an address of its own,
// who has the target.
func NeighborSolicitation(guest mac.Addr, from, target netip.Addr) []byte {
	m := make([]byte, targetAt, neighborLen)
	m[0] = packet.NeighborSolicitation
	return solicitation(guest, from, packet.SolicitedNode(target), append(m, target.AsSlice()...))
}

// solicitation makes a frame of a message, with the guest's MAC for the answer.
func solicitation(guest mac.Addr, from, group netip.Addr, message []byte) []byte {
	frame := append(make([]byte, packet.Head6Len), message...)
	frame = append(frame, packet.OptionSourceMAC, 1)
	frame = append(frame, guest[:]...)
	packet.Seal6(frame, packet.Packet6{
		SrcMAC: guest, DstMAC: packet.MulticastMAC(group), Src: from, Dst: group,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: packet.HopLimitND,
	})
	return frame
}

// ParseRouterAdvertisement returns which router advertises itself. The checks are
// those of RFC 4861 §6.1.2.
func ParseRouterAdvertisement(frame []byte) (router netip.Addr, err error) {
	p, err := parse(frame, packet.RouterAdvertisement, routerAdvertisementLen)
	if err != nil {
		return netip.Addr{}, err
	}
	if !p.Src.IsLinkLocalUnicast() {
		return netip.Addr{}, fmt.Errorf("%w: it comes from %v", ErrNoAnswer, p.Src)
	}
	return p.Src, nil
}

// ParseNeighborAdvertisement returns who says to have which address. The checks are
// those of RFC 4861 §7.1.2; the answer to a question to all must have the MAC
// (§7.2.4).
func ParseNeighborAdvertisement(frame []byte) (target netip.Addr, at mac.Addr, err error) {
	p, err := parse(frame, packet.NeighborAdvertisement, neighborLen)
	if err != nil {
		return netip.Addr{}, mac.Addr{}, err
	}
	for rest := p.Payload[neighborLen:]; len(rest) > 0; {
		var option []byte
		option, rest, _ = packet.CutOption(rest)
		if option[0] == packet.OptionTargetMAC && len(option) == 8 {
			at = mac.Addr(option[2:])
		}
	}
	target = netip.AddrFrom16([16]byte(p.Payload[targetAt:]))
	if target.IsMulticast() || at.IsZero() || at.IsGroup() {
		return netip.Addr{}, mac.Addr{}, fmt.Errorf("%w: %v is said to be at %q", ErrNoAnswer, target, at)
	}
	return target, at, nil
}

// parse reads a message of neighbour discovery of which all options have a length.
func parse(frame []byte, kind byte, least int) (packet.Packet6, error) {
	p, err := packet.Parse6(frame, unix.IPPROTO_ICMPV6, false)
	switch {
	case err != nil:
		return p, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	case p.HopLimit != packet.HopLimitND, len(p.Payload) < least, p.Payload[0] != kind, p.Payload[1] != 0:
		return p, ErrNoAnswer
	}
	for rest := p.Payload[least:]; len(rest) > 0; {
		var ok bool
		if _, rest, ok = packet.CutOption(rest); !ok {
			return p, fmt.Errorf("%w: an option has no valid length", ErrNoAnswer)
		}
	}
	return p, nil
}
