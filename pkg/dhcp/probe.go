package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// probeClass is the vendor class, and the client identifier, of a DISCOVER that
// only checks whether there is an answer.
const probeClass = "virt-launcher-net/check"

// ErrNotReply is returned for a frame that is not a DHCP server's message to a
// client.
var ErrNotReply = errors.New("not a DHCP reply")

// DiscoverFrame is a whole Ethernet frame with a DHCPDISCOVER as the guest with
// this MAC address would send it. A Server answers it like the guest's own and
// counts it, but the lease's state stays what it is.
func DiscoverFrame(guest net.HardwareAddr, xid uint32) []byte {
	m := &dhcpv4.DHCPv4{
		OpCode:       dhcpv4.OpcodeBootRequest,
		HWType:       iana.HWTypeEthernet,
		ClientHWAddr: guest,
		Options: dhcpv4.Options{
			optMessageType:    {byte(dhcpv4.MessageTypeDiscover)},
			optVendorClass:    []byte(probeClass),
			optClientID:       append([]byte{0}, probeClass...), // type 0: not a link address (RFC 2132 §9.14)
			optMaxMessageSize: binary.BigEndian.AppendUint16(nil, maxDatagram),
			optParameters: {
				optSubnetMask, optRoutes, optRouter, optDNS, optHostname, optDomainName, optMTU, optSearch,
			},
		},
	}
	binary.BigEndian.PutUint32(m.TransactionID[:], xid)
	frame, _ := appendMessage(make([]byte, headLen, ethLen+minDatagram), m, nil, minDatagram-ipLen-udpLen)
	sealFrame(frame,
		endpoint{mac: packet.MACOf(guest), ip: netip.IPv4Unspecified(), port: clientPort},
		endpoint{mac: broadcastMAC, ip: broadcastIP, port: serverPort})
	return frame
}

// isProbe tells whether a message is a DiscoverFrame's.
func isProbe(m *dhcpv4.DHCPv4) bool {
	id := m.Options[optClientID]
	return messageType(m) == dhcpv4.MessageTypeDiscover &&
		string(m.Options[optVendorClass]) == probeClass &&
		len(id) > 0 && string(id[1:]) == probeClass
}

// ParseReplyFrame reads a DHCP server's message from a whole Ethernet frame, as
// the guest would get it. The error wraps ErrNotReply if the frame is something
// else, or damaged. The message does not share the frame's memory. Whether the reply belongs to a certain question is told by
// its TransactionID.
func ParseReplyFrame(frame []byte) (*dhcpv4.DHCPv4, error) {
	d, err := parseFrame(frame, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReply, err)
	}
	if d.src.port != serverPort || d.dst.port != clientPort {
		return nil, fmt.Errorf("%w: ports are %d and %d", ErrNotReply, d.src.port, d.dst.port)
	}
	m, err := parseMessage(slices.Clone(d.payload))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReply, err)
	}
	if m.OpCode != dhcpv4.OpcodeBootReply {
		return nil, fmt.Errorf("%w: it is a request", ErrNotReply)
	}
	return m, nil
}
