package dhcp

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// What the server keeps of what it sees. Each of these is one change, after
// which those who wait look again.

// say logs what a guest can bring about, only so often: beyond, for debugging.
// The lock is held.
func (s *Server) say(log func(msg string, args ...any), msg string, args ...any) {
	if !s.lines.Spare(time.Now()) {
		log = s.log.Debug
	}
	log(msg, args...)
}

// announce wakes those who wait. The lock is held.
func (s *Server) announce() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *Server) setServing(serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Serving = serving
	s.announce()
}

// fail logs and keeps an error that Serve outlives.
func (s *Server) fail(err error) {
	s.mu.Lock()
	s.say(s.log.Warn, "DHCP server goes on after an error", "error", err)
	s.mu.Unlock()
	s.setError(err)
}

func (s *Server) setError(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.LastError = Failure{Error: err.Error(), At: time.Now()}
	s.announce()
}

// refuse counts a message that got no answer.
func (s *Server) refuse(err error) {
	var why Silence
	if errors.As(err, &why) && why != NeedsNoReply {
		s.drop(why)
	}
}

func (s *Server) drop(why Silence) {
	s.log.Debug("DHCP message dropped", "reason", string(why))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops[why]++
	s.announce()
}

// noteRequest keeps what a message says before it is answered; verdict is why
// it gets none, or nil.
func (s *Server) noteRequest(req *dhcpv4.DHCPv4, verdict error) {
	typ := messageType(req)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.announce()
	s.received.add(typ)
	if IsProbe(req) {
		return
	}
	s.status.LastMessage = Message{Type: typeName(typ), At: time.Now()}
	switch {
	case errors.Is(verdict, OtherServer):
		if typ == dhcpv4.MessageTypeRequest && s.status.State == Offered {
			s.setState(None, 0)
		}
	case errors.Is(verdict, NeedsNoReply):
		s.noteEnd(typ)
	case verdict == nil:
		s.status.Client = clientOf(req)
	}
}

// noteEnd keeps that the guest gave the address back. The lock is held.
func (s *Server) noteEnd(typ dhcpv4.MessageType) {
	now := time.Now()
	s.setState(None, 0)
	if typ == dhcpv4.MessageTypeRelease {
		s.happened(EventReleased, now)
		return
	}
	pause := cmp.Or(s.DeclinePause, defaultDeclinePause)
	s.declinedUntil = now.Add(pause)
	s.happened(EventDeclined, now)
	s.say(s.log.Warn, "guest declined its address: somebody else answers for it", "address", s.responder.lease.Address, "pause", pause)
}

// noteReply keeps what the guest has been told.
func (s *Server) noteReply(r *Responder, req, reply *dhcpv4.DHCPv4) {
	question, answer := messageType(req), messageType(reply)
	s.log.Debug("DHCP message answered", "message", typeName(question), "answer", typeName(answer))
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.announce()
	s.sent.add(answer)
	switch {
	case IsProbe(req), question == dhcpv4.MessageTypeInform:
	case answer == dhcpv4.MessageTypeNak:
		s.say(s.log.Warn, "guest asked for another address than its own", "address", r.lease.Address,
			"requested", optionAddr(req, optRequestedIP), "current", addrOf(req.ClientIPAddr))
		s.setState(None, 0)
		s.happened(EventRefused, time.Now())
	case answer == dhcpv4.MessageTypeOffer:
		s.setState(Offered, 0)
		s.happened(EventOffered, time.Now())
	case answer == dhcpv4.MessageTypeAck:
		s.setState(Bound, r.lease.Duration)
		typ := EventBound
		if question == dhcpv4.MessageTypeRequest && addrOf(req.ClientIPAddr).IsValid() {
			typ = EventRenewed // only who has the address fills in ciaddr (RFC 2131 §4.3.2)
		}
		s.happened(typ, time.Now())
	}
}

// setState sets the lease's state for a time, 0 without end. The lock is held.
func (s *Server) setState(state State, lasts time.Duration) {
	now := time.Now()
	st := &s.status
	if st.State != state {
		s.say(s.log.Info, "DHCP lease is "+string(state), "address", s.responder.lease.Address, "client", s.status.Client.Hostname)
		st.State, st.Since = state, now
	}
	st.Expires = time.Time{}
	if s.expiry != nil {
		s.expiry.Stop() // if it is too late for that, expire sees that the time is another
		s.expiry = nil
	}
	if lasts > 0 {
		st.Expires = now.Add(lasts)
		s.expiry = time.AfterFunc(lasts, s.expire)
	}
}

// expire ends a lease that was not renewed in time.
func (s *Server) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.status.Expires
	if at.IsZero() || time.Now().Before(at) {
		return
	}
	s.setState(None, 0)
	s.status.Since = at
	s.happened(EventExpired, at)
	s.announce()
}

// noteMisfits keeps, once for each option, that it did not fit.
func (s *Server) noteMisfits(reply *dhcpv4.DHCPv4, codes []uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.announce()
	for _, code := range codes {
		if s.misfits[code] {
			continue
		}
		s.misfits[code] = true
		note := fmt.Sprintf("option %d left out: its %d bytes do not fit the message size that the guest takes", code, len(reply.Options[code]))
		s.status.Notes = append(s.status.Notes, note)
		s.log.Warn("DHCP setting left out or changed", "setting", note)
	}
}
