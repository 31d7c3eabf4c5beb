package prestart_test

import (
	"net"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// IPv6 headers by their number (RFC 8200), and where they begin in a frame.
const (
	hopByHop, routing, fragmentation, authentication, destinationOptions = 0, 43, 44, 51, 60
	isUDP, isTCP, isICMP6                                                = 17, 6, 58
	head6, head6End                                                      = 14, 54
)

// Neighbour discovery (RFC 4861) and its options.
const (
	solicitRouter, advertiseRouter, solicit, advertise, redirectTo = 133, 134, 135, 136, 137
	sourceMAC, targetMAC, prefixOption, nonce                      = 1, 2, 3, 14
)

const client6, server6 = 546, 547

var (
	nobody6   = netip.IPv6Unspecified()
	stranger6 = party{stranger.mac, netip.MustParseAddr("fd00::99")}
	allNodes  = party{net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, netip.MustParseAddr("ff02::1")}
	allDHCP   = party{net.HardwareAddr{0x33, 0x33, 0, 1, 0, 2}, netip.MustParseAddr("ff02::1:2")}
	reporters = party{net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0x16}, netip.MustParseAddr("ff02::16")}
)

// group is who a neighbour solicitation for an address is sent to (RFC 4291
// section 2.7.1, RFC 2464 section 7).
func group(a netip.Addr) party {
	b := a.As16()
	to := netip.MustParseAddr("ff02::1:ff00:0").As16()
	copy(to[13:], b[13:])
	return party{net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}, netip.AddrFrom16(to)}
}

// packet6 is IPv6 with what its header says is next.
func packet6(from, to party, next, hopLimit byte, payload []byte) []byte {
	return podtest.IPv6Frame(from.mac, to.mac, from.ip, to.ip, next, hopLimit, payload)
}

// icmp6From is a whole ICMPv6 message with what follows its checksum.
func icmp6From(from, to party, kind, hopLimit byte, body ...[]byte) []byte {
	return podtest.ICMPv6Frame(from.mac, to.mac, from.ip, to.ip, kind, hopLimit, body...)
}

// neighbor is a message about a target, with options.
func neighbor(from, to party, kind byte, target netip.Addr, options ...[]byte) []byte {
	flags := []byte{0, 0, 0, 0}
	if kind == advertise {
		flags[0] = 0x60 // solicited, override
	}
	return icmp6From(from, to, kind, 255, flags, target.AsSlice(), slices.Concat(options...))
}

// router is an advertisement of a default router that has all make themselves
// addresses of a prefix of 64 bits (RFC 4861 sections 4.2 and 4.6.2).
func router(mac net.HardwareAddr, prefix string) []byte {
	from := party{mac, netip.MustParseAddr("fe80::1")}
	head := []byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}
	prefixOf := []byte{prefixOption, 4, 64, 0xc0, 0, 0, 0xe, 0x10, 0, 0, 0xe, 0x10, 0, 0, 0, 0}
	return icmp6From(from, allNodes, advertiseRouter, 255, head, prefixOf, netip.MustParseAddr(prefix).AsSlice())
}

// option is one of neighbour discovery with six bytes in it.
func option(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// Short names for what is all over.
var behind, lengthOf, fragment6 = podtest.BehindHeaders, podtest.WithLength6, podtest.Fragment6
