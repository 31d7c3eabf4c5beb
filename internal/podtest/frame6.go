package podtest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// IPv6Len is the length of the header in an IPv6Frame.
const IPv6Len = 40

// Where things are in such a frame.
const (
	length6At  = EthernetLen + 4
	next6At    = EthernetLen + 6
	source6At  = EthernetLen + 8
	payload6At = EthernetLen + IPv6Len
)

// IPv6Frame is a whole Ethernet frame with an IPv6 packet. Where the protocol
// that is next has a checksum, that is made right.
func IPv6Frame(src, dst net.HardwareAddr, from, to netip.Addr, next, hopLimit byte, payload []byte) []byte {
	ip := binary.BigEndian.AppendUint16([]byte{0x60, 0, 0, 0}, uint16(len(payload)))
	frame := ethernet(src, dst, unix.ETH_P_IPV6, ip, []byte{next, hopLimit}, from.AsSlice(), to.AsSlice(), payload)
	at, ok := map[byte]int{unix.IPPROTO_UDP: 6, unix.IPPROTO_TCP: 16, unix.IPPROTO_ICMPV6: 2}[next]
	if !ok {
		return frame
	}
	at += payload6At
	binary.BigEndian.PutUint16(frame[at:], 0)
	// The pseudo header is the addresses, the protocol and the length (RFC 8200
	// section 8.1).
	sum := checksum(uint32(next)+uint32(len(payload)), frame[source6At:])
	if sum == 0 {
		sum = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(frame[at:], sum)
	return frame
}

// ICMPv6Frame is an IPv6Frame with an ICMPv6 message and what follows its checksum.
func ICMPv6Frame(src, dst net.HardwareAddr, from, to netip.Addr, kind, hopLimit byte, body ...[]byte) []byte {
	return IPv6Frame(src, dst, from, to, unix.IPPROTO_ICMPV6, hopLimit, append([]byte{kind, 0, 0, 0}, slices.Concat(body...)...))
}

// BehindHeaders puts extension headers without meaning, by their numbers, in
// front of what is in an IPv6Frame.
func BehindHeaders(frame []byte, headers ...byte) []byte {
	next := frame[next6At]
	var chain []byte
	for _, kind := range slices.Backward(headers) {
		header := []byte{next, 0, 1, 4, 0, 0, 0, 0} // padding (RFC 8200 section 4.2)
		switch kind {
		case unix.IPPROTO_FRAGMENT: // the whole packet in one (RFC 6946)
			header = []byte{next, 0, 0, 0, 0, 0, 0, 7}
		case unix.IPPROTO_AH: // RFC 4302
			header = []byte{next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0}
		case unix.IPPROTO_ROUTING:
			header = []byte{next, 0, 0xfd, 0, 0, 0, 0, 0} // of an experimental kind (RFC 4727)
		}
		chain, next = append(header, chain...), kind
	}
	out := slices.Concat(frame[:payload6At], chain, frame[payload6At:])
	out[next6At] = next
	return WithLength6(out, len(out)-payload6At)
}

// Fragment6 is a part of an IPv6Frame's packet (RFC 8200 section 4.5), whose
// offset is a multiple of 8. What it says is next counts in the first one only.
func Fragment6(frame []byte, start, end int, next byte) []byte {
	offset := uint16(start)
	if payload6At+end < len(frame) {
		offset |= 1 // more to come
	}
	header := append([]byte{next, 0}, byte(offset>>8), byte(offset), 0, 0, 0, 8)
	out := slices.Concat(frame[:payload6At], header, frame[payload6At+start:min(payload6At+end, len(frame))])
	out[next6At] = unix.IPPROTO_FRAGMENT
	return WithLength6(out, len(out)-payload6At)
}

// WithLength6 has an IPv6Frame's packet say that it is as long as n.
func WithLength6(frame []byte, n int) []byte {
	frame = slices.Clone(frame)
	binary.BigEndian.PutUint16(frame[length6At:], uint16(n))
	return frame
}

// RouterFrame is a router's advertisement, to all hosts, of itself as the default
// router and of a prefix that hosts make themselves an address of (RFC 4861
// sections 4.2 and 4.6.2).
func RouterFrame(src net.HardwareAddr, from netip.Addr, prefix netip.Prefix) []byte {
	const lifetime = 1800
	seconds := binary.BigEndian.AppendUint32(nil, lifetime)
	option := slices.Concat([]byte{3, 4, byte(prefix.Bits()), 0xc0}, seconds, seconds, make([]byte, 4), prefix.Addr().AsSlice())
	allNodes := netip.IPv6LinkLocalAllNodes()
	return ICMPv6Frame(src, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, from, allNodes, 134, 255,
		[]byte{64, 0, lifetime >> 8, lifetime & 0xff}, make([]byte, 8), option)
}
