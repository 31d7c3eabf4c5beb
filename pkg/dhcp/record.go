package dhcp

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// What the server keeps of what it sees.

// refuse counts a message that gets no answer.
func (s *Server) refuse(err error) {
	if !errors.Is(err, NeedsNoReply) {
		s.journal.Refuse(err)
	}
}

// noteRequest keeps what a message says before it is answered; verdict is why
// it gets none, or nil.
func (s *Server) noteRequest(req *dhcpv4.DHCPv4, verdict error) {
	typ := messageType(req)
	s.journal.Write(func(e journal.Entry) {
		e.Received(typeName(typ))
		if isProbe(req) {
			return
		}
		e.Message(typeName(typ))
		switch {
		case errors.Is(verdict, OtherServer):
			if typ == dhcpv4.MessageTypeRequest && e.Is(Offered) {
				e.OtherOffer()
			}
		case errors.Is(verdict, NeedsNoReply):
			if typ == dhcpv4.MessageTypeRelease {
				e.Released()
			} else {
				e.Declined(cmp.Or(s.DeclinePause, defaultDeclinePause))
			}
		case verdict == nil:
			e.Client(clientOf(req))
		}
	})
}

// noteReply keeps what the guest has been told.
func (s *Server) noteReply(r *Responder, req, reply *dhcpv4.DHCPv4) {
	question, answer := messageType(req), messageType(reply)
	s.log.Debug("DHCP message answered", "message", typeName(question), "answer", typeName(answer))
	s.journal.Write(func(e journal.Entry) {
		e.Sent(typeName(answer))
		switch {
		case isProbe(req), question == dhcpv4.MessageTypeInform:
		case answer == dhcpv4.MessageTypeNak:
			e.Refused("requested", optionAddr(req, optRequestedIP), "current", addrOf(req.ClientIPAddr))
		case answer == dhcpv4.MessageTypeOffer:
			e.State(Offered, 0)
			e.Happened(EventOffered, time.Now())
		case answer == dhcpv4.MessageTypeAck:
			e.State(Bound, r.lease.Duration)
			typ := EventBound
			if question == dhcpv4.MessageTypeRequest && addrOf(req.ClientIPAddr).IsValid() {
				typ = EventRenewed // only who has the address fills in ciaddr (RFC 2131 §4.3.2)
			}
			e.Happened(typ, time.Now())
		}
	})
}

// noteMisfits keeps, once for each option, that it did not fit.
func (s *Server) noteMisfits(reply *dhcpv4.DHCPv4, codes []uint8) {
	for _, code := range codes {
		if s.firstMisfit(code) {
			s.journal.Write(func(e journal.Entry) {
				e.Note(fmt.Sprintf("option %d left out: its %d bytes do not fit the message size that the guest takes", code, len(reply.Options[code])))
			})
		}
	}
}
