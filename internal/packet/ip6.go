package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Lengths of the headers that Seal6 and SealUDP6 write.
const (
	ipv6Len  = 40
	Head6Len = EthernetLen + ipv6Len
	UDP6Len  = Head6Len + udpLen
)

// Offsets in an IPv6 header.
const (
	payloadLengthAt = 4
	nextHeaderAt    = 6
	hopLimitAt      = 7
	addressesAt     = 8
)

// hopLimit of UDP.
const hopLimit = 64

// MulticastMAC is the Ethernet address of an IPv6 multicast group (RFC 2464 §7).
func MulticastMAC(group netip.Addr) mac.Addr {
	a := group.As16()
	return mac.Addr{0x33, 0x33, a[12], a[13], a[14], a[15]}
}

// Packet6 is an IPv6 packet without extension headers, with its link addresses.
type Packet6 struct {
	SrcMAC, DstMAC mac.Addr
	Src, Dst       netip.Addr
	Protocol       uint8
	HopLimit       uint8
	// Payload is the protocol's header and what follows, within the frame.
	Payload []byte
}

// checksumAt is where the checksum of ICMPv6 or UDP is, and the protocol's least length.
func checksumAt(protocol uint8) (at, least int) {
	if protocol == unix.IPPROTO_ICMPV6 {
		return 2, 4
	}
	return 6, udpLen
}

// Parse6 takes an Ethernet frame with a packet of the protocol, UDP or ICMPv6,
// apart. It trusts no length in it. checksumPending is as Conn.Run gives it.
func Parse6(b []byte, protocol uint8, checksumPending bool) (Packet6, error) {
	at, least := checksumAt(protocol)
	if len(b) < Head6Len+least || binary.BigEndian.Uint16(b[etherTypeAt:]) != unix.ETH_P_IPV6 {
		return Packet6{}, ErrBadFrame
	}
	ip := b[EthernetLen:]
	size := int(binary.BigEndian.Uint16(ip[payloadLengthAt:]))
	if ip[0]>>4 != 6 || ip[nextHeaderAt] != protocol || size < least || size > len(ip)-ipv6Len {
		return Packet6{}, ErrBadFrame
	}
	p := Packet6{
		SrcMAC: mac.Addr(b[6:12]), DstMAC: mac.Addr(b[:6]),
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
	if missing || fold(pseudoSum6(ip, p.Payload)) != 0xffff {
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

	at, _ := checksumAt(p.Protocol)
	binary.BigEndian.PutUint16(payload[at:], 0)
	putChecksum(payload[at:], pseudoSum6(ip, payload))
}

// pseudoSum6 sums a payload and its pseudo header (RFC 8200 §8.1).
func pseudoSum6(ip, payload []byte) uint64 {
	return sum(sum(uint64(ip[nextHeaderAt])+uint64(len(payload)), ip[addressesAt:ipv6Len]), payload)
}

// ParseUDP6 takes an Ethernet frame with an IPv6/UDP packet apart. It trusts no
// length in it. checksumPending is as Conn.Run gives it.
func ParseUDP6(b []byte, checksumPending bool) (UDP, error) {
	p, err := Parse6(b, unix.IPPROTO_UDP, checksumPending)
	if err != nil {
		return UDP{}, err
	}
	udp := p.Payload
	// What follows the datagram in the packet is in the checksum all the same.
	if size := int(binary.BigEndian.Uint16(udp[4:])); size != len(udp) {
		return UDP{}, ErrBadFrame
	}
	return UDP{
		SrcMAC: p.SrcMAC, DstMAC: p.DstMAC,
		Src:     netip.AddrPortFrom(p.Src, binary.BigEndian.Uint16(udp)),
		Dst:     netip.AddrPortFrom(p.Dst, binary.BigEndian.Uint16(udp[2:])),
		Payload: udp[udpLen:],
	}, nil
}

// SealUDP6 writes all headers into the first UDP6Len bytes of b, whose rest is the
// payload whatever u.Payload is.
func SealUDP6(b []byte, u UDP) {
	putUDP(b[Head6Len:], u)
	Seal6(b, Packet6{
		SrcMAC: u.SrcMAC, DstMAC: u.DstMAC, Src: u.Src.Addr(), Dst: u.Dst.Addr(),
		Protocol: unix.IPPROTO_UDP, HopLimit: hopLimit,
	})
}
