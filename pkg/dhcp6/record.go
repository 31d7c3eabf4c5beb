package dhcp6

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// What the server keeps of what it sees.

// noteRequest keeps what a message says before it is answered; verdict is why
// it gets no answer, or nil.
func (s *Server) noteRequest(req *dhcpv6.Message, verdict error) {
	s.journal.Write(func(e journal.Entry) {
		e.Received(typeName(req.MessageType))
		if isProbe(req) {
			return
		}
		e.Message(typeName(req.MessageType))
		switch {
		case errors.Is(verdict, OtherServer):
			if req.MessageType == dhcpv6.MessageTypeRequest && e.Is(journal.Offered) {
				e.OtherOffer()
			}
		case verdict == nil:
			e.Client(clientOf(req))
		}
	})
}

// noteReply keeps what the guest has been told.
func (s *Server) noteReply(r *Responder, req, reply *dhcpv6.Message) {
	question, answer := req.MessageType, reply.MessageType
	s.log.Debug("DHCPv6 message answered", "message", question, "answer", answer)
	s.journal.Write(func(e journal.Entry) {
		e.Sent(typeName(answer))
		if isProbe(req) || status(reply.Options.Options) == iana.StatusUseMulticast {
			return
		}
		now := time.Now()
		switch question {
		case dhcpv6.MessageTypeRelease:
			if ours, _ := r.named(req); ours > 0 {
				e.Released()
			}
		case dhcpv6.MessageTypeDecline:
			if ours, _ := r.named(req); ours > 0 {
				e.Declined(cmp.Or(s.DeclinePause, defaultDeclinePause))
			}
		case dhcpv6.MessageTypeConfirm:
			if status(reply.Options.Options) == iana.StatusSuccess {
				if !e.Is(journal.Bound) { // it extends nothing (RFC 8415 §18.3.3): it ends then at the latest
					e.State(journal.Bound, r.lease.Valid)
				}
				e.Happened(journal.EventBound, now)
			} else {
				e.Refused()
			}
		case dhcpv6.MessageTypeInformationRequest:
		default:
			s.noteGrant(e, r, req, reply, now)
		}
	})
}

// noteGrant keeps that the guest was given the address, or was not.
func (s *Server) noteGrant(e journal.Entry, r *Responder, req, reply *dhcpv6.Message, now time.Time) {
	switch {
	case !r.grants(reply):
		if req.MessageType != dhcpv6.MessageTypeSolicit && len(reply.Options.IANA()) > 0 {
			e.Refused()
		}
	case reply.MessageType == dhcpv6.MessageTypeAdvertise:
		e.State(journal.Offered, 0)
		e.Happened(journal.EventOffered, now)
	default:
		e.State(journal.Bound, r.lease.Valid)
		typ := journal.EventBound
		switch req.MessageType {
		case dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind:
			if ours, _ := r.named(req); ours > 0 {
				typ = journal.EventRenewed
			}
		}
		e.Happened(typ, now)
	}
}

// noteMisfits keeps, once for each option, that it did not fit.
func (s *Server) noteMisfits(codes []dhcpv6.OptionCode) {
	for _, code := range codes {
		s.journal.Write(func(e journal.Entry) {
			e.Note(fmt.Sprintf("option %d left out: it does not fit the link's MTU", uint16(code)))
		})
	}
}

// grants tells whether a reply gives the guest its address.
func (r *Responder) grants(reply *dhcpv6.Message) bool {
	return slices.ContainsFunc(reply.Options.IANA(), r.has)
}

// status is a status code; Success if there is none.
func status(options dhcpv6.Options) iana.StatusCode {
	if o, ok := options.GetOne(dhcpv6.OptionStatusCode).(*dhcpv6.OptStatusCode); ok {
		return o.StatusCode
	}
	return iana.StatusSuccess
}

// typeName is the type's name; those that there are not have one in common.
func typeName(m dhcpv6.MessageType) string {
	if m == 0 || m > dhcpv6.MessageTypeInformationRequest {
		return "OTHER"
	}
	return m.String()
}

// clientOf reads what the guest says of itself.
func clientOf(req *dhcpv6.Message) journal.Client {
	c := journal.Client{ID: fmt.Sprintf("%x", valueOf(req, dhcpv6.OptionClientID))}
	if v := valueOf(req, dhcpv6.OptionFQDN); len(v) > 0 {
		c.Hostname = journal.Printable(labels(v[1:]))
	}
	if _, class := vendorClass(req); class != nil {
		c.VendorClass = journal.Printable(class)
	}
	return c
}

// labels makes text of a name on the wire, as far as it goes.
func labels(b []byte) []byte {
	var out [][]byte
	for len(b) > 0 && b[0] > 0 && int(b[0]) < len(b) {
		out = append(out, b[1:1+b[0]])
		b = b[1+b[0]:]
	}
	return bytes.Join(out, []byte("."))
}
