package dhcp

import (
	"encoding/binary"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// Ports of RFC 2131 §4.1.
const (
	serverPort = 67
	clientPort = 68
)

// Sizes in bytes.
const (
	ethLen  = packet.EthernetLen
	ipLen   = 20 // without options
	udpLen  = 8
	headLen = ethLen + ipLen + udpLen
)

const (
	etherTypeIPv4 = 0x0800
	protoUDP      = 17
	dontFragment  = 0x4000
	fragmentMask  = 0x3fff // more fragments, and the offset
	timeToLive    = 64
)

var (
	broadcastMAC = packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	broadcastIP  = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// endpoint is one side of a UDP packet on the link.
type endpoint struct {
	mac  packet.MAC
	ip   netip.Addr
	port uint16
}

// datagram is a UDP packet with its link addresses.
type datagram struct {
	src, dst endpoint
	payload  []byte // within the frame
}

// parseFrame takes an Ethernet frame apart. It trusts no length in it.
// checksumPending is true where the sender left the UDP checksum to hardware
// that a tap does not have: it is not there yet, and nothing can have damaged
// the packet.
func parseFrame(b []byte, checksumPending bool) (datagram, error) {
	var d datagram
	if len(b) < headLen || binary.BigEndian.Uint16(b[12:]) != etherTypeIPv4 {
		return d, BadFrame
	}
	d.dst.mac, d.src.mac = packet.MACOf(b), packet.MACOf(b[6:])

	ip := b[ethLen:]
	head, total := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	switch {
	case ip[0]>>4 != 4, head < ipLen, total < head+udpLen, total > len(ip), ip[9] != protoUDP,
		binary.BigEndian.Uint16(ip[6:])&fragmentMask != 0:
		return d, BadFrame
	case packet.Fold(packet.Sum(0, ip[:head])) != 0xffff:
		return d, BadChecksum
	}
	d.src.ip, d.dst.ip = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))

	udp := ip[head:total] // without the padding of short frames
	size := int(binary.BigEndian.Uint16(udp[4:]))
	if size < udpLen || size > len(udp) {
		return d, BadFrame
	}
	udp = udp[:size]
	// A checksum of zero is none (RFC 768).
	if !checksumPending && binary.BigEndian.Uint16(udp[6:]) != 0 && packet.Fold(pseudoSum(ip[12:20], udp)) != 0xffff {
		return d, BadChecksum
	}
	d.src.port, d.dst.port = binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
	d.payload = udp[udpLen:]
	return d, nil
}

// sealFrame writes the Ethernet, IPv4 and UDP headers into the first headLen
// bytes of b, whose rest is the payload. Both checksums are computed: there is
// no hardware behind a tap that would.
func sealFrame(b []byte, src, dst endpoint) {
	copy(b, dst.mac[:])
	copy(b[6:], src.mac[:])
	binary.BigEndian.PutUint16(b[12:], etherTypeIPv4)

	ip := b[ethLen:]
	clear(ip[:ipLen])
	ip[0] = 4<<4 | ipLen/4
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[6:], dontFragment) // so the identification may be 0 (RFC 6864)
	ip[8], ip[9] = timeToLive, protoUDP
	from, to := src.ip.As4(), dst.ip.As4()
	copy(ip[12:], from[:])
	copy(ip[16:], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^packet.Fold(packet.Sum(0, ip[:ipLen])))

	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp, src.port)
	binary.BigEndian.PutUint16(udp[2:], dst.port)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	binary.BigEndian.PutUint16(udp[6:], 0)
	check := ^packet.Fold(pseudoSum(ip[12:20], udp))
	if check == 0 {
		check = 0xffff // zero would mean none
	}
	binary.BigEndian.PutUint16(udp[6:], check)
}

// pseudoSum sums a UDP packet and the pseudo header of RFC 768.
func pseudoSum(addrs, udp []byte) uint64 {
	return packet.Sum(packet.Sum(uint64(protoUDP)+uint64(len(udp)), addrs), udp)
}
