package podtest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Lengths of the headers in a UDPFrame.
const (
	EthernetLen = 14
	IPv4Len     = 20
	UDPLen      = 8
)

// UDPFrame is a whole Ethernet frame with a UDP datagram in IPv4 or IPv6, as the
// addresses are, unfragmented and with right checksums, as a guest's network card
// sends it.
func UDPFrame(src, dst net.HardwareAddr, from, to netip.AddrPort, payload []byte) []byte {
	udp := make([]byte, UDPLen, UDPLen+len(payload))
	binary.BigEndian.PutUint16(udp, from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], uint16(UDPLen+len(payload)))
	udp = append(udp, payload...)
	if to.Addr().Is6() {
		return IPv6Frame(src, dst, from.Addr(), to.Addr(), unix.IPPROTO_UDP, 64, udp)
	}

	ip := make([]byte, IPv4Len)
	ip[0] = 0x45 // version 4, five words
	binary.BigEndian.PutUint16(ip[2:], uint16(IPv4Len+len(udp)))
	ip[8], ip[9] = 64, unix.IPPROTO_UDP // TTL before it
	copy(ip[12:], from.Addr().AsSlice())
	copy(ip[16:], to.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	// The pseudo header is the addresses, the protocol and the length (RFC 768).
	sum := checksum(unix.IPPROTO_UDP+uint32(len(udp)), ip[12:], udp)
	if sum == 0 {
		sum = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	return ethernet(src, dst, unix.ETH_P_IP, ip, udp)
}

func ethernet(src, dst net.HardwareAddr, etherType uint16, payload ...[]byte) []byte {
	head := binary.BigEndian.AppendUint16(slices.Concat(dst, src), etherType)
	return append(head, slices.Concat(payload...)...)
}

// checksum is the Internet checksum (RFC 1071) of parts, of which all but the
// last have an even length, and of what was summed before.
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, b := range parts {
		for ; len(b) > 1; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// EchoFrame is a whole Ethernet frame with an ICMP echo request (RFC 792).
func EchoFrame(src, dst net.HardwareAddr, from, to netip.Addr) []byte {
	icmp := make([]byte, 64)
	icmp[0] = 8
	binary.BigEndian.PutUint16(icmp[2:], checksum(0, icmp))
	frame := UDPFrame(src, dst, netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0), icmp[UDPLen:])
	ip := frame[EthernetLen : EthernetLen+IPv4Len]
	ip[9], ip[10], ip[11] = 1, 0, 0
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	copy(frame[EthernetLen+IPv4Len:], icmp)
	return frame
}

// Fragment4 is a part of a UDPFrame's packet (RFC 791), whose payload it is from start to
// end, as of a packet with this protocol and the identification 0.
func Fragment4(frame []byte, start, end int, protocol byte) []byte {
	whole := frame[EthernetLen+IPv4Len:]
	out := slices.Concat(frame[:EthernetLen+IPv4Len], whole[start:end])
	ip := out[EthernetLen : EthernetLen+IPv4Len]
	binary.BigEndian.PutUint16(ip[2:], uint16(IPv4Len+end-start))
	offset := uint16(start / 8)
	if end < len(whole) {
		offset |= 0x2000 // more fragments
	}
	binary.BigEndian.PutUint16(ip[6:], offset)
	ip[9], ip[10], ip[11] = protocol, 0, 0
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	return out
}
