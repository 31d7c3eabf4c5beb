package dhcp

import (
	"errors"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// errNoReply is that DHCPDECLINE and DHCPRELEASE have no answer. It is no fault.
var errNoReply = errors.New("the message has no reply")

// reply is [Lease.Reply] as RFC 2131 §4.3 has it for a server with one client. It is
// pure: what was said before plays no part, since there is nothing to allocate. The
// error is errNoReply or a lease.DropReason if the message gets no answer.
func (r *responder) reply(req *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, error) {
	typ, err := r.verdict(req)
	if err != nil {
		return nil, err
	}
	return r.message(req, typ), nil
}

// verdict says which message answers req.
func (r *responder) verdict(req *dhcpv4.DHCPv4) (dhcpv4.MessageType, error) {
	switch {
	case req.OpCode != dhcpv4.OpcodeBootRequest, req.HWType != iana.HWTypeEthernet, len(req.ClientHWAddr) != len(r.lease.MAC):
		return 0, lease.DropNotRequest
	case addrOf(req.GatewayIPAddr).IsValid():
		return 0, lease.DropRelayed
	case mac.Of(req.ClientHWAddr) != r.lease.MAC:
		return 0, lease.DropOtherClient
	}
	switch messageType(req) {
	case dhcpv4.MessageTypeDiscover:
		if _, ok := req.Options[optRapidCommit]; ok {
			return dhcpv4.MessageTypeAck, nil
		}
		return dhcpv4.MessageTypeOffer, nil
	case dhcpv4.MessageTypeRequest:
		return r.request(req)
	case dhcpv4.MessageTypeInform:
		return dhcpv4.MessageTypeAck, nil
	case dhcpv4.MessageTypeDecline:
		return 0, r.about(req, optionAddr(req, optRequestedIP))
	case dhcpv4.MessageTypeRelease:
		return 0, r.about(req, addrOf(req.ClientIPAddr))
	case dhcpv4.MessageTypeNone:
		return 0, lease.DropMalformed
	default:
		return 0, lease.DropUnexpectedType
	}
}

// request is the table of RFC 2131 §4.3.2 and §4.3.6:
//
//	state        server identifier  requested address  ciaddr
//	SELECTING    ours               must be given      zero
//	INIT-REBOOT  none               must be given      zero
//	RENEWING     none               none               must be given
//	REBINDING    none               none               must be given
//
// Since the client's one address is known, a stale one is refused at once in
// every state, and clients that fill in more than they should do no harm.
func (r *responder) request(req *dhcpv4.DHCPv4) (dhcpv4.MessageType, error) {
	if malformedAddr(req, optServerID) || malformedAddr(req, optRequestedIP) {
		return 0, lease.DropMalformed
	}
	server, requested, current := optionAddr(req, optServerID), optionAddr(req, optRequestedIP), addrOf(req.ClientIPAddr)
	address := r.lease.Address.Addr()
	switch {
	case server.IsValid() && server != r.lease.Server:
		return 0, lease.DropOtherServer // the guest chose another offer
	case !requested.IsValid() && !current.IsValid():
		return 0, lease.DropNoAddress
	case requested.IsValid() && requested != address, current.IsValid() && current != address:
		return dhcpv4.MessageTypeNak, nil
	default:
		return dhcpv4.MessageTypeAck, nil
	}
}

// about tells whether a message without an answer concerns this lease.
func (r *responder) about(req *dhcpv4.DHCPv4, addr netip.Addr) error {
	if malformedAddr(req, optServerID) || malformedAddr(req, optRequestedIP) {
		return lease.DropMalformed
	}
	if server := optionAddr(req, optServerID); server.IsValid() && server != r.lease.Server {
		return lease.DropOtherServer
	}
	if addr != r.lease.Address.Addr() {
		return lease.DropNoAddress
	}
	return errNoReply
}

// message fills in the reply's fields by RFC 2131 §4.3.1, table 3.
func (r *responder) message(req *dhcpv4.DHCPv4, typ dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        iana.HWTypeEthernet,
		TransactionID: req.TransactionID,
		Flags:         req.Flags,
		ClientIPAddr:  net.IPv4zero,
		YourIPAddr:    net.IPv4zero,
		ServerIPAddr:  net.IPv4zero,
		GatewayIPAddr: net.IPv4zero,
		ClientHWAddr:  req.ClientHWAddr,
		Options:       make(dhcpv4.Options, len(r.settings)+3),
	}
	m.Options[optMessageType] = r.types[typ]
	m.Options[optServerID] = r.server
	if id := req.Options[optClientID]; len(id) > 0 {
		m.Options[optClientID] = id // RFC 6842 §3
	}
	if typ == dhcpv4.MessageTypeNak {
		m.Options[optMessage] = r.refusal
		return m
	}

	question := messageType(req)
	if question != dhcpv4.MessageTypeInform {
		m.YourIPAddr = r.yiaddr
	}
	if question != dhcpv4.MessageTypeDiscover && req.ClientIPAddr != nil {
		m.ClientIPAddr = req.ClientIPAddr
	}
	if question == dhcpv4.MessageTypeDiscover && typ == dhcpv4.MessageTypeAck {
		m.Options[optRapidCommit] = nil // RFC 4039 §4
	}
	r.addBoot(m, req)
	r.addSettings(m.Options, req.Options[optParameters], question == dhcpv4.MessageTypeInform)
	return m
}

// messageType reads option 53. None: it is missing or malformed.
func messageType(m *dhcpv4.DHCPv4) dhcpv4.MessageType {
	if v := m.Options[optMessageType]; len(v) == 1 {
		return dhcpv4.MessageType(v[0])
	}
	return dhcpv4.MessageTypeNone
}

// optionAddr reads an option that holds one address. Invalid: it is missing.
func optionAddr(m *dhcpv4.DHCPv4, code uint8) netip.Addr {
	a, _ := netip.AddrFromSlice(m.Options[code])
	if !a.Is4() {
		return netip.Addr{}
	}
	return a
}

func malformedAddr(m *dhcpv4.DHCPv4, code uint8) bool {
	v, ok := m.Options[code]
	return ok && len(v) != net.IPv4len
}

// addrOf reads a header field. Invalid: it is zero.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	a = a.Unmap()
	if !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
