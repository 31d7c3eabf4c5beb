package dhcp6

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// responder answers for one lease, of which all is encoded that does not depend
// on the question. It is not changed any more: any goroutine may use it.
type responder struct {
	lease    Lease
	settings dhcpv6.Options
	duid     []byte // the server's
	serverID dhcpv6.Option
}

// compile makes the responder of a lease, and a note for each thing that can't
// be sent and is left out, as Normalize has it. It fails if the lease is not
// valid.
func (l Lease) compile() (*responder, []string, error) {
	l, left := l.Normalize()
	if err := l.Validate(); err != nil {
		return nil, nil, err
	}
	id := serverID(l.MAC)
	return &responder{lease: l, settings: settingsOf(l), duid: id.ToBytes(), serverID: dhcpv6.OptServerID(id)}, left, nil
}

// Reply is what a Server answers to one message of the guest, sent to one server
// (unicast) or to all; nobody need serve. The error is a lease.DropReason if the message
// gets no answer, or says what is wrong with the lease. The reply shares memory with the
// request, and has all options that should go out; a Server fits them to the link.
func (l Lease) Reply(req *dhcpv6.Message, unicast bool) (*dhcpv6.Message, error) {
	r, _, err := l.compile()
	if err != nil {
		return nil, err
	}
	return r.reply(req, unicast)
}

// reply is [Lease.Reply] as RFC 8415 §18.3 has it for a server with one client. It is
// pure: what was said before plays no part, since there is nothing to allocate.
func (r *responder) reply(req *dhcpv6.Message, unicast bool) (*dhcpv6.Message, error) {
	if err := r.verdict(req, unicast); err != nil {
		return nil, err
	}
	m := r.message(req, dhcpv6.MessageTypeReply)
	if unicast {
		addStatus(&m.Options.Options, iana.StatusUseMulticast, "ask all servers")
		return m, nil
	}
	switch req.MessageType {
	case dhcpv6.MessageTypeSolicit:
		r.solicit(m, req)
	case dhcpv6.MessageTypeRequest:
		r.addIAs(m, req, requested)
		r.addSettings(m, req)
	case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
		r.addIAs(m, req, extended)
		r.addSettings(m, req)
	case dhcpv6.MessageTypeInformationRequest:
		r.addSettings(m, req)
	case dhcpv6.MessageTypeConfirm:
		return m, r.confirm(m, req)
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		r.giveBack(m, req)
	default: // verdict has seen to that
		return nil, lease.DropUnexpectedType
	}
	return m, nil
}

// verdict tells whether the message gets an answer, by RFC 8415 §16 and §18.3:
//
//	                                     client  server  to one server
//	Solicit, Confirm, Rebind             must    not     dropped
//	Request, Renew, Release, Decline     must    ours    told to ask all
//	Information-request                  may     may     dropped
func (r *responder) verdict(req *dhcpv6.Message, unicast bool) error {
	client, server := valueOf(req, dhcpv6.OptionClientID) != nil, valueOf(req, dhcpv6.OptionServerID)
	switch req.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		switch {
		case unicast:
			return lease.DropUnicast
		case !client, server != nil:
			return lease.DropMalformed
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		switch {
		case !client, server == nil:
			return lease.DropMalformed
		case !bytes.Equal(server, r.duid):
			return lease.DropOtherServer
		}
	case dhcpv6.MessageTypeInformationRequest:
		switch {
		case unicast:
			return lease.DropUnicast
		case server != nil && !bytes.Equal(server, r.duid):
			return lease.DropOtherServer
		case hasIA(req):
			return lease.DropMalformed // RFC 8415 §16.12
		}
	default:
		return lease.DropUnexpectedType
	}
	return nil
}

// message is an answer with the identifiers that each has.
func (r *responder) message(req *dhcpv6.Message, typ dhcpv6.MessageType) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: typ, TransactionID: req.TransactionID}
	if o := req.Options.GetOne(dhcpv6.OptionClientID); o != nil {
		m.Options.Add(o)
	}
	m.Options.Add(r.serverID)
	return m
}

// solicit fills in the answer to a Solicit (RFC 8415 §18.3.1, §18.3.9): an
// Advertise, or at once the Reply if the client wants that and gets an address.
// With the highest preference the client does not wait for other servers.
func (r *responder) solicit(m, req *dhcpv6.Message) {
	granted := r.addIAs(m, req, solicited)
	if granted && req.Options.GetOne(dhcpv6.OptionRapidCommit) != nil {
		m.Options.Add(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	} else {
		m.MessageType = dhcpv6.MessageTypeAdvertise
		m.Options.Add(dhcpv6.OptPreference(255))
	}
	r.addSettings(m, req)
}

// confirm fills in the answer to a Confirm (RFC 8415 §18.3.3). On this link there
// is one address.
func (r *responder) confirm(m, req *dhcpv6.Message) error {
	switch {
	case r.others(req) != nil:
		addStatus(&m.Options.Options, iana.StatusNotOnLink, "the address is "+r.lease.Address.String())
	case r.isIn(req):
		addStatus(&m.Options.Options, iana.StatusSuccess, "")
	default:
		return lease.DropNoAddress
	}
	return nil
}

// others are the addresses that a message names and that the guest does not have here.
func (r *responder) others(m *dhcpv6.Message) (all []*dhcpv6.OptIAAddress) {
	for _, ia := range m.Options.IANA() {
		all = append(all, slices.DeleteFunc(ia.Options.Addresses(), r.isOwn)...)
	}
	for _, ia := range m.Options.IATA() {
		all = append(all, ia.Options.Addresses()...)
	}
	return all
}

// giveBack fills in the answer to a Release or a Decline (RFC 8415 §18.3.7,
// §18.3.8): it succeeds, but for what the guest never had.
func (r *responder) giveBack(m, req *dhcpv6.Message) {
	addStatus(&m.Options.Options, iana.StatusSuccess, "")
	for _, o := range req.Options.Options {
		ia, ok := o.(*dhcpv6.OptIANA)
		if ok && r.has(ia) {
			continue
		}
		if answer := refuse(o, iana.StatusNoBinding, iana.StatusNoBinding); answer != nil {
			m.Options.Add(answer)
		}
	}
}

// addStatus adds a status code (RFC 8415 §21.13).
func addStatus(options *dhcpv6.Options, code iana.StatusCode, text string) {
	options.Add(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: text})
}

func hasIA(m *dhcpv6.Message) bool {
	return m.Options.OneIANA() != nil || m.Options.OneIATA() != nil || m.Options.OneIAPD() != nil
}

// isIn tells whether a message names the guest's address: the guest says that it has
// it, or a reply gives it.
func (r *responder) isIn(m *dhcpv6.Message) bool { return slices.ContainsFunc(m.Options.IANA(), r.has) }

func addrOf(a *dhcpv6.OptIAAddress) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.IPv6Addr)
	return addr
}
