package packet

import "net/netip"

// Messages of neighbour discovery as ICMPv6 types, and their options (RFC 4861 §4).
const (
	RouterSolicitation    = 133
	RouterAdvertisement   = 134
	NeighborSolicitation  = 135
	NeighborAdvertisement = 136

	OptionSourceMAC = 1
	OptionTargetMAC = 2

	// HopLimitND is that of each: no router has forwarded it.
	HopLimitND = 255
)

// SolicitedNode is the group of those who may have the address (RFC 4291 §2.7.1).
func SolicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// CutOption cuts the first option of neighbour discovery (RFC 4861 §4.6) off. ok is
// false if its length is wrong.
func CutOption(b []byte) (option, rest []byte, ok bool) {
	if len(b) < 2 || b[1] == 0 || int(b[1])*8 > len(b) {
		return nil, nil, false
	}
	n := int(b[1]) * 8
	return b[:n], b[n:], true
}
