package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Lengths of headers in bytes.
const (
	EthernetLen = 14
	ipv6Len     = 40
	Head6Len    = EthernetLen + ipv6Len // of what Seal6 writes
)

// Offsets, in an Ethernet frame and in an IPv6 header.
const (
	etherTypeAt     = 12
	payloadLengthAt = 4
	nextHeaderAt    = 6
	hopLimitAt      = 7
	addressesAt     = 8
)

// What is wrong with a frame.
var (
	ErrBadFrame    = errors.New("not a whole frame of the protocol")
	ErrBadChecksum = errors.New("the checksum is wrong")
)

// MAC is an Ethernet address.
type MAC [6]byte

// MACOf takes the first six bytes of a hardware address.
func MACOf(b []byte) (m MAC) {
	copy(m[:], b)
	return m
}

// Broadcast is the Ethernet address of all.
var Broadcast = mac.Addr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// MulticastMAC is the Ethernet address of an IPv6 multicast group (RFC 2464 §7).
func MulticastMAC(group netip.Addr) MAC {
	a := group.As16()
	return MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// LinkLocal is the link-local address that an interface makes of its MAC (RFC 4291
// appendix A).
func LinkLocal(m mac.Addr) netip.Addr { return m.LinkLocal() }

// Packet6 is an IPv6 packet without extension headers, with its link addresses.
type Packet6 struct {
	SrcMAC, DstMAC MAC
	Src, Dst       netip.Addr
	Protocol       uint8
	HopLimit       uint8
	// Payload is the protocol's header and what follows, within the frame.
	Payload []byte
}

// checksumAt is where a protocol's checksum is, and its least length.
func checksumAt(protocol uint8) (at, least int, ok bool) {
	switch protocol {
	case unix.IPPROTO_UDP:
		return 6, 8, true
	case unix.IPPROTO_ICMPV6:
		return 2, 4, true
	}
	return 0, 0, false
}

// Parse6 takes an Ethernet frame with a packet of the protocol, UDP or ICMPv6,
// apart. It trusts no length in it. checksumPending is as Conn.Run gives it.
func Parse6(b []byte, protocol uint8, checksumPending bool) (Packet6, error) {
	at, least, ok := checksumAt(protocol)
	if !ok || len(b) < Head6Len+least || binary.BigEndian.Uint16(b[etherTypeAt:]) != unix.ETH_P_IPV6 {
		return Packet6{}, ErrBadFrame
	}
	ip := b[EthernetLen:]
	size := int(binary.BigEndian.Uint16(ip[payloadLengthAt:]))
	if ip[0]>>4 != 6 || ip[nextHeaderAt] != protocol || size < least || size > len(ip)-ipv6Len {
		return Packet6{}, ErrBadFrame
	}
	p := Packet6{
		SrcMAC: MACOf(b[6:]), DstMAC: MACOf(b),
		Src: netip.AddrFrom16([16]byte(ip[addressesAt:])), Dst: netip.AddrFrom16([16]byte(ip[addressesAt+16:])),
		Protocol: protocol, HopLimit: ip[hopLimitAt],
		Payload: ip[ipv6Len : ipv6Len+size], // without the padding of short frames
	}
	if checksumPending {
		return p, nil
	}
	// UDP always has a checksum, which is then not zero (RFC 8200 §8.1). That of
	// ICMPv6 may be.
	missing := protocol == unix.IPPROTO_UDP && binary.BigEndian.Uint16(p.Payload[at:]) == 0
	if missing || Fold(pseudoSum6(ip, p.Payload)) != 0xffff {
		return Packet6{}, ErrBadChecksum
	}
	return p, nil
}

// Seal6 writes the Ethernet and IPv6 headers of p into the first Head6Len bytes
// of b, whose rest is the payload whatever p.Payload is, and the checksum into
// that: there is no hardware behind a tap that would.
func Seal6(b []byte, p Packet6) {
	copy(b, p.DstMAC[:])
	copy(b[6:], p.SrcMAC[:])
	binary.BigEndian.PutUint16(b[etherTypeAt:], unix.ETH_P_IPV6)

	ip, payload := b[EthernetLen:], b[Head6Len:]
	binary.BigEndian.PutUint32(ip, 6<<28)
	binary.BigEndian.PutUint16(ip[payloadLengthAt:], uint16(len(payload)))
	ip[nextHeaderAt], ip[hopLimitAt] = p.Protocol, p.HopLimit
	src, dst := p.Src.As16(), p.Dst.As16()
	copy(ip[addressesAt:], src[:])
	copy(ip[addressesAt+16:], dst[:])

	at, _, _ := checksumAt(p.Protocol)
	binary.BigEndian.PutUint16(payload[at:], 0)
	check := ^Fold(pseudoSum6(ip, payload))
	if check == 0 {
		check = 0xffff // the same number; for UDP zero is not one
	}
	binary.BigEndian.PutUint16(payload[at:], check)
}

// pseudoSum6 sums a payload and its pseudo header (RFC 8200 §8.1).
func pseudoSum6(ip, payload []byte) uint64 {
	return Sum(Sum(uint64(ip[nextHeaderAt])+uint64(len(payload)), ip[addressesAt:ipv6Len]), payload)
}

// Sum adds b to a ones' complement sum (RFC 1071). 64 bits hold the carries of
// any packet.
func Sum(s uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		s += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

// Fold makes the 16 bits of a sum.
func Fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
