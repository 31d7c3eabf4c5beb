package prestart_test

import (
	"encoding/binary"
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

// packet6 is IPv6 with what its header says is next, whose checksum at an offset
// is made right (RFC 8200 section 8.1).
func packet6(from, to party, next, hopLimit byte, checksumAt int, payload []byte) []byte {
	header := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
	frame := ethernet(to.mac, from.mac, 0x86dd, slices.Concat(header, []byte{next, hopLimit}, from.ip.AsSlice(), to.ip.AsSlice(), payload)...)
	sum := uint32(next) + uint32(len(payload))
	for i, b := range frame[head6+8:] {
		sum += uint32(b) << (8 * (1 - i%2))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(frame[head6End+checksumAt:], ^uint16(sum))
	return frame
}

// udp6 is udp for IPv6.
func udp6(from, to party, sport, dport uint16, name string) []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, sport), dport)
	b = binary.BigEndian.AppendUint16(b, uint16(podtest.UDPLen+len(name)))
	return packet6(from, to, isUDP, 64, 6, slices.Concat(b, []byte{0, 0}, []byte(name)))
}

// icmp6From is a whole ICMPv6 message with what follows its checksum.
func icmp6From(from, to party, kind, hopLimit byte, body ...[]byte) []byte {
	return packet6(from, to, isICMP6, hopLimit, 2, append([]byte{kind, 0, 0, 0}, slices.Concat(body...)...))
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

// behind puts extension headers of 8 bytes without meaning in front of what is
// in a packet.
func behind(frame []byte, headers ...byte) []byte {
	next := frame[head6+6]
	var chain []byte
	for _, kind := range slices.Backward(headers) {
		header := []byte{next, 0, 1, 4, 0, 0, 0, 0} // padding (RFC 8200 section 4.2)
		switch kind {
		case fragmentation: // the whole packet in one (RFC 6946)
			header = []byte{next, 0, 0, 0, 0, 0, 0, 7}
		case authentication: // RFC 4302
			header = []byte{next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}
		case routing:
			header = []byte{next, 0, 0xfd, 0, 0, 0, 0, 0} // of an experimental kind (RFC 4727)
		}
		chain, next = append(header, chain...), kind
	}
	out := slices.Concat(frame[:head6End], chain, frame[head6End:])
	out[head6+6] = next
	return lengthOf(out, len(out)-head6End)
}

// lengthOf has a packet say that it is as long as n.
func lengthOf(frame []byte, n int) []byte {
	frame = slices.Clone(frame)
	binary.BigEndian.PutUint16(frame[head6+4:], uint16(n))
	return frame
}

// fragment6 is a part of a packet (RFC 8200 section 4.5), whose offset is a
// multiple of 8. What it says is next counts in the first one only.
func fragment6(frame []byte, start, end int, next byte) []byte {
	offset := uint16(start)
	if head6End+end < len(frame) {
		offset |= 1 // more to come
	}
	header := append([]byte{next, 0}, byte(offset>>8), byte(offset), 0, 0, 0, 8)
	out := slices.Concat(frame[:head6End], header, frame[head6End+start:min(head6End+end, len(frame))])
	out[head6+6] = fragmentation
	return lengthOf(out, len(out)-head6End)
}
