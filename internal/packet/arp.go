package packet

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// arpLen is the length of an ARP packet for IPv4 on Ethernet (RFC 826).
const arpLen = 28

// arpHead is what each begins with: Ethernet, IPv4, the lengths of their addresses.
var arpHead = [6]byte{0, 1, 8, 0, 6, 4}

// Operations of ARP.
const (
	arpRequest = 1
	arpReply   = 2
)

// ARPRequest returns an Ethernet frame to all in which the owner of from asks who
// has the IPv4 address to.
func ARPRequest(sender mac.Addr, from, to netip.Addr) []byte {
	frame := make([]byte, 0, EthernetLen+arpLen)
	frame = append(frame, Broadcast[:]...)
	frame = append(frame, sender[:]...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = append(frame, arpHead[:]...)
	frame = append(frame, 0, arpRequest)
	frame = append(append(frame, sender[:]...), from.AsSlice()...)
	return append(append(frame, 0, 0, 0, 0, 0, 0), to.AsSlice()...)
}

// ParseARPReply returns who says, in an Ethernet frame, to have which IPv4
// address. The error is [ErrBadFrame] for any other frame.
func ParseARPReply(frame []byte) (address netip.Addr, at mac.Addr, err error) {
	if len(frame) < EthernetLen+arpLen || binary.BigEndian.Uint16(frame[etherTypeAt:]) != unix.ETH_P_ARP {
		return netip.Addr{}, mac.Addr{}, ErrBadFrame
	}
	arp := frame[EthernetLen:]
	if [6]byte(arp) != arpHead || binary.BigEndian.Uint16(arp[6:]) != arpReply {
		return netip.Addr{}, mac.Addr{}, ErrBadFrame
	}
	return netip.AddrFrom4([4]byte(arp[14:])), mac.Addr(arp[8:14]), nil
}
