package dhcp6

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// probeDUID is the client identifier of a Solicit that only checks whether there
// is an answer: a DUID-EN of the reserved enterprise 0.
var probeDUID = append([]byte{0, byte(dhcpv6.DUID_EN), 0, 0, 0, 0}, "virt-launcher-net/check"...)

// ErrNotReply is returned for a frame that is not a DHCPv6 server's message to a
// client.
var ErrNotReply = errors.New("not a DHCPv6 reply")

// SolicitFrame is a whole Ethernet frame with a Solicit as the guest with this
// MAC address would send it from its link-local address. A Server answers it
// like the guest's own and counts it, but the lease's state stays what it is.
func SolicitFrame(guest net.HardwareAddr, id dhcpv6.TransactionID) []byte {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeSolicit, TransactionID: id}
	m.Options.Add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionClientID, OptionData: probeDUID})
	m.Options.Add(&dhcpv6.OptIANA{})
	m.Options.Add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionElapsedTime, OptionData: []byte{0, 0}})
	m.Options.Add(dhcpv6.OptRequestedOption(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList))
	frame, _ := appendMessage(make([]byte, headLen), m, maxLink)
	sealFrame(frame, datagram{
		Packet6: packet.Packet6{
			SrcMAC: packet.MACOf(guest), DstMAC: packet.MulticastMAC(allServers), Src: linkLocal(guest), Dst: allServers,
		},
		srcPort: clientPort, dstPort: serverPort,
	})
	return frame
}

// linkLocal is the link-local address that follows from an Ethernet address (RFC
// 4291, appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	m := packet.MACOf(mac)
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// isProbe tells whether a message is a SolicitFrame's.
func isProbe(m *dhcpv6.Message) bool {
	return m.MessageType == dhcpv6.MessageTypeSolicit && bytes.Equal(valueOf(m, dhcpv6.OptionClientID), probeDUID)
}

// ParseReplyFrame reads a DHCPv6 server's message from a whole Ethernet frame, as
// the guest would get it. The error wraps ErrNotReply if the frame is something
// else, or damaged. The message does not share the frame's memory. Of its
// options, identity associations, identifiers and status codes are typed, all
// others are dhcpv6.OptionGeneric.
func ParseReplyFrame(frame []byte) (*dhcpv6.Message, error) {
	d, err := parseFrame(frame, false)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReply, err)
	}
	if d.srcPort != serverPort || d.dstPort != clientPort {
		return nil, fmt.Errorf("%w: ports are %d and %d", ErrNotReply, d.srcPort, d.dstPort)
	}
	m, err := parseMessage(slices.Clone(d.message))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotReply, err)
	}
	switch m.MessageType {
	case dhcpv6.MessageTypeAdvertise, dhcpv6.MessageTypeReply:
		return m, nil
	}
	return nil, fmt.Errorf("%w: it is a %v", ErrNotReply, m.MessageType)
}
