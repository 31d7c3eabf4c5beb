package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Lengths of an IPv4 header without options, and of the headers that SealUDP4 writes.
const (
	ipv4Len = 20
	UDP4Len = EthernetLen + ipv4Len + udpLen
)

// Of an IPv4 header.
const (
	fragmentAt   = 6
	protocolAt   = 9
	dontFragment = 0x4000
	fragmentMask = 0x3fff // more fragments, and the offset
)

// ParseUDP4 takes an Ethernet frame with an unfragmented IPv4/UDP packet apart. It
// trusts no length in it. checksumPending is as Conn.Run gives it.
func ParseUDP4(b []byte, checksumPending bool) (UDP, error) {
	if len(b) < UDP4Len || binary.BigEndian.Uint16(b[etherTypeAt:]) != unix.ETH_P_IP {
		return UDP{}, ErrBadFrame
	}
	ip := b[EthernetLen:]
	head, total := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4, head < ipv4Len, total < head+udpLen, total > len(ip), ip[protocolAt] != unix.IPPROTO_UDP,
		binary.BigEndian.Uint16(ip[fragmentAt:])&fragmentMask != 0:
		return UDP{}, ErrBadFrame
	case fold(sum(0, ip[:head])) != 0xffff:
		return UDP{}, ErrBadChecksum
	}
	udp := ip[head:total] // without the padding of short frames
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpLen || size > len(udp) {
		return UDP{}, ErrBadFrame
	}
	udp = udp[:size]
	// A checksum of zero is none (RFC 768).
	if !checksumPending && binary.BigEndian.Uint16(udp[6:]) != 0 && fold(pseudoSum4(ip, udp)) != 0xffff {
		return UDP{}, ErrBadChecksum
	}
	return UDP{
		SrcMAC: mac.Addr(b[6:12]), DstMAC: mac.Addr(b[:6]),
		Src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:])), binary.BigEndian.Uint16(udp)),
		Dst:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:])), binary.BigEndian.Uint16(udp[2:])),
		Payload: udp[udpLen:],
	}, nil
}

// SealUDP4 writes the Ethernet, IPv4 and UDP headers into the first UDP4Len bytes of
// b, whose rest is the payload whatever u.Payload is. Both checksums are computed:
// there is no hardware behind a tap that would.
func SealUDP4(b []byte, u UDP) {
	copy(b, u.DstMAC[:])
	copy(b[6:], u.SrcMAC[:])
	binary.BigEndian.PutUint16(b[etherTypeAt:], unix.ETH_P_IP)

	ip := b[EthernetLen:]
	clear(ip[:ipv4Len])
	ip[0] = 4<<4 | ipv4Len/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[fragmentAt:], dontFragment) // so the identification may be 0 (RFC 6864)
	ip[8], ip[protocolAt] = hopLimit, unix.IPPROTO_UDP
	from, to := u.Src.Addr().As4(), u.Dst.Addr().As4()
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip[:ipv4Len])))

	udp := ip[ipv4Len:]
	putUDP(udp, u)
	putChecksum(udp[6:], pseudoSum4(ip, udp))
}

// pseudoSum4 sums a UDP packet and the pseudo header of RFC 768.
func pseudoSum4(ip, udp []byte) uint64 {
	return sum(sum(uint64(unix.IPPROTO_UDP)+uint64(len(udp)), ip[12:ipv4Len]), udp)
}
