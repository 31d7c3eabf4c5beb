package dhcp6

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// Ports of RFC 8415 §7.2.
const (
	clientPort = 546
	serverPort = 547
)

const (
	udpLen   = 8
	headLen  = packet.Head6Len + udpLen
	hopLimit = 64
	// minLink and maxLink are the least and the most that a packet of ours has,
	// whatever the link would carry.
	minLink, maxLink = 1280, 1500
)

// allServers is All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
var allServers = netip.MustParseAddr("ff02::1:2")

// ErrGone means that the interface a Conn was opened on does not exist any
// more, or was moved to another network namespace.
var ErrGone = packet.ErrGone

// filter lets what was sent to the server port pass.
var filter = packet.IPv6Filter(unix.IPPROTO_UDP, 2, 2, serverPort)

// Conn is a packet socket on one Ethernet interface that receives what was sent
// to the DHCPv6 server port, and nothing else. It works where the interface is
// down, has no carrier, or is a bridge's port, and needs no address there.
type Conn struct {
	link *packet.Conn
}

// Listen opens a Conn on the interface in the network namespace of the calling
// thread, which needs CAP_NET_RAW there. The Conn can be used by any goroutine
// then, by one Server at a time. Close it.
func Listen(name string) (*Conn, error) {
	link, err := packet.Listen(name, filter)
	if err != nil {
		return nil, fmt.Errorf("listen for DHCPv6 on %s: %w", name, err)
	}
	return &Conn{link}, nil
}

// Close ends a Serve that is under way and frees the sockets.
func (c *Conn) Close() error { return c.link.Close() }

// datagram is a UDP packet with its link addresses.
type datagram struct {
	packet.Packet6
	srcPort, dstPort uint16
	message          []byte // within the frame
}

// parseFrame takes an Ethernet frame apart. It trusts no length in it.
// checksumPending is as packet.Loop has it.
func parseFrame(b []byte, checksumPending bool) (datagram, error) {
	p, err := packet.Parse6(b, unix.IPPROTO_UDP, checksumPending)
	if errors.Is(err, packet.ErrBadChecksum) {
		return datagram{}, BadChecksum
	}
	if err != nil {
		return datagram{}, BadFrame
	}
	udp := p.Payload
	// What follows the datagram in the packet is in the checksum all the same.
	if size := int(binary.BigEndian.Uint16(udp[4:])); size != len(udp) {
		return datagram{}, BadFrame
	}
	return datagram{
		Packet6: p, message: udp[udpLen:],
		srcPort: binary.BigEndian.Uint16(udp), dstPort: binary.BigEndian.Uint16(udp[2:]),
	}, nil
}

// sealFrame writes all headers into the first headLen bytes of b, whose rest is
// the message.
func sealFrame(b []byte, d datagram) {
	udp := b[packet.Head6Len:]
	binary.BigEndian.PutUint16(udp, d.srcPort)
	binary.BigEndian.PutUint16(udp[2:], d.dstPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	d.Protocol, d.HopLimit = unix.IPPROTO_UDP, hopLimit
	packet.Seal6(b, d.Packet6)
}
