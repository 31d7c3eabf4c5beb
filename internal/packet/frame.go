package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Of an Ethernet header.
const (
	EthernetLen = 14
	etherTypeAt = 12
)

// udpLen is the length of a UDP header.
const udpLen = 8

// What is wrong with a frame.
var (
	ErrBadFrame    = errors.New("not a whole frame of the protocol")
	ErrBadChecksum = errors.New("the checksum is wrong")
)

// Broadcast is the Ethernet address of all.
var Broadcast = mac.Addr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// UDP is a UDP datagram with its link addresses.
type UDP struct {
	SrcMAC, DstMAC mac.Addr
	Src, Dst       netip.AddrPort
	Payload        []byte // within the frame
}

// putUDP writes the UDP header but for the checksum.
func putUDP(b []byte, u UDP) {
	binary.BigEndian.PutUint16(b, u.Src.Port())
	binary.BigEndian.PutUint16(b[2:], u.Dst.Port())
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], 0)
}

// putChecksum writes the checksum of a sum. Zero is written as the same number that
// is not zero: for UDP zero is no checksum.
func putChecksum(b []byte, sum uint64) {
	check := ^fold(sum)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(b, check)
}

// sum adds b to a ones' complement sum (RFC 1071). 64 bits hold the carries of
// any packet.
func sum(s uint64, b []byte) uint64 {
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

// fold makes the 16 bits of a sum.
func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
