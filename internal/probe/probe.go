// Package probe has the questions of a guest that boots, and reads the answers: for
// a check that looks from the guest's side of a tap. It is pure. All frames are whole
// Ethernet frames.
//
// The servers answer the questions like the guest's own and count them, but the
// lease's state stays what it is.
package probe

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// class is the vendor class, and the client identifier, of our questions.
const class = "virt-launcher-net/check"

// ErrNoAnswer is wrapped by all errors: the frame is something else than the answer,
// or damaged.
var ErrNoAnswer = errors.New("not an answer")

// Ports of RFC 2131 §4.1 and RFC 8415 §7.2.
const (
	client4, server4 = 68, 67
	client6, server6 = 546, 547
)

// Discover is a DHCPDISCOVER as the guest with this MAC would send it.
func Discover(guest mac.Addr, xid dhcpv4.TransactionID) []byte {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, TransactionID: xid, ClientHWAddr: guest[:],
		Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(dhcpv4.MessageTypeDiscover),
			dhcpv4.OptClassIdentifier(class),
			dhcpv4.OptClientIdentifier(append([]byte{0}, class...)), // type 0: not a link address (RFC 2132 §9.14)
			dhcpv4.OptMaxMessageSize(1500),
			dhcpv4.OptParameterRequestList(
				dhcpv4.OptionSubnetMask, dhcpv4.OptionClasslessStaticRoute, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
				dhcpv4.OptionHostName, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionDNSDomainSearchList),
		),
	}
	frame := append(make([]byte, packet.UDP4Len), m.ToBytes()...)
	packet.SealUDP4(frame, packet.UDP{
		SrcMAC: guest, DstMAC: packet.Broadcast,
		Src: netip.AddrPortFrom(netip.IPv4Unspecified(), client4),
		Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte(net.IPv4bcast.To4())), server4),
	})
	return frame
}

// IsDiscover tells whether a message is a Discover's.
func IsDiscover(m *dhcpv4.DHCPv4) bool {
	id := m.Options[dhcpv4.OptionClientIdentifier.Code()]
	typ := m.Options[dhcpv4.OptionDHCPMessageType.Code()]
	return len(typ) == 1 && dhcpv4.MessageType(typ[0]) == dhcpv4.MessageTypeDiscover && len(id) > 0 && string(id[1:]) == class &&
		string(m.Options[dhcpv4.OptionClassIdentifier.Code()]) == class
}

// ParseDHCP reads a DHCP server's message. Whether it belongs to a certain question
// is told by its TransactionID.
func ParseDHCP(frame []byte) (*dhcpv4.DHCPv4, error) {
	u, err := packet.ParseUDP4(frame, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	m, err := dhcpv4.FromBytes(u.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	if u.Src.Port() != server4 || u.Dst.Port() != client4 || m.OpCode != dhcpv4.OpcodeBootReply {
		return nil, fmt.Errorf("%w: a %v from port %d to %d", ErrNoAnswer, m.OpCode, u.Src.Port(), u.Dst.Port())
	}
	return m, nil
}

// duid is the client identifier of a Solicit: a DUID-EN of the reserved enterprise 0.
var (
	duid      = dhcpv6.DUIDEN{EnterpriseIdentifier: []byte(class)}
	duidBytes = string(duid.ToBytes())
)

// allServers is All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1).
var allServers = netip.MustParseAddr("ff02::1:2")

// Solicit is a DHCPv6 Solicit as the guest with this MAC would send it from its
// link-local address.
func Solicit(guest mac.Addr, id dhcpv6.TransactionID) []byte {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeSolicit, TransactionID: id}
	m.Options.Add(dhcpv6.OptClientID(&duid))
	m.Options.Add(&dhcpv6.OptIANA{})
	m.Options.Add(dhcpv6.OptElapsedTime(0))
	m.Options.Add(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList))
	frame := append(make([]byte, packet.UDP6Len), m.ToBytes()...)
	packet.SealUDP6(frame, packet.UDP{
		SrcMAC: guest, DstMAC: packet.MulticastMAC(allServers),
		Src: netip.AddrPortFrom(guest.LinkLocal(), client6), Dst: netip.AddrPortFrom(allServers, server6),
	})
	return frame
}

// IsSolicit tells whether a message is a Solicit's.
func IsSolicit(m *dhcpv6.Message) bool {
	id := m.Options.GetOne(dhcpv6.OptionClientID)
	return m.MessageType == dhcpv6.MessageTypeSolicit && id != nil && string(id.ToBytes()) == duidBytes
}

// ParseDHCPv6 reads a DHCPv6 server's Advertise or Reply. Whether it belongs to a
// certain question is told by its TransactionID.
func ParseDHCPv6(frame []byte) (*dhcpv6.Message, error) {
	u, err := packet.ParseUDP6(frame, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	m, err := dhcpv6.MessageFromBytes(u.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	isAnswer := m.MessageType == dhcpv6.MessageTypeAdvertise || m.MessageType == dhcpv6.MessageTypeReply
	if u.Src.Port() != server6 || u.Dst.Port() != client6 || !isAnswer {
		return nil, fmt.Errorf("%w: a %v from port %d to %d", ErrNoAnswer, m.MessageType, u.Src.Port(), u.Dst.Port())
	}
	return m, nil
}
