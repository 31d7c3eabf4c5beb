package dhcp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// State is how far the guest has come.
type State string

// States of the lease. There is no other address to give: a lease that ran out
// or was released is None.
const (
	None    State = "none"
	Offered State = "offered"
	Bound   State = "bound"
)

// Status is what a Server knows at one moment. It is a value.
type Status struct {
	// Serving is whether Serve runs.
	Serving bool `json:"serving"`
	// Interface is the tap.
	Interface string `json:"interface"`
	// Address is the one the lease is about, whatever its state.
	Address netip.Prefix `json:"address"`
	// State of the lease, since when, and when it ends. Expires is zero while
	// there is no end.
	State   State     `json:"state"`
	Since   time.Time `json:"since,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
	// Renewed is when the guest last renewed the lease, Declined when it last
	// refused the address because somebody else uses it. Zero: never.
	Renewed  time.Time `json:"renewed,omitzero"`
	Declined time.Time `json:"declined,omitzero"`
	// LastEvent is the last step of the lease.
	LastEvent Event `json:"lastEvent,omitzero"`
	// Client is what the guest says of itself.
	Client Client `json:"client,omitzero"`
	// LastMessage is the last one from the guest.
	LastMessage Message `json:"lastMessage,omitzero"`
	// Received and Sent count messages by type (DISCOVER, OFFER, …), Dropped
	// those that got no answer by the reason.
	Received map[string]uint64  `json:"received,omitempty"`
	Sent     map[string]uint64  `json:"sent,omitempty"`
	Dropped  map[Silence]uint64 `json:"dropped,omitempty"`
	// LastError is the last thing that went wrong on our side.
	LastError Failure `json:"lastError,omitzero"`
	// Notes say which settings could not be sent, and why.
	Notes []string `json:"notes,omitempty"`
}

// Client is what the guest says of itself. It may say anything: what cannot be
// printed was replaced, what is long was cut.
type Client struct {
	Hostname    string `json:"hostname,omitempty"`
	VendorClass string `json:"vendorClass,omitempty"`
	// ID is the client identifier (option 61) in hexadecimal.
	ID string `json:"id,omitempty"`
}

// Message is a message's type and when it came.
type Message struct {
	Type string    `json:"type"`
	At   time.Time `json:"at"`
}

// Failure is an error and when it happened.
type Failure struct {
	Error string    `json:"error"`
	At    time.Time `json:"at"`
}

// Status tells what is.
func (s *Server) Status() Status {
	status, _ := s.snapshot()
	return status
}

// Resume takes over what an earlier server knew of this lease, so that a guest
// that has its address, and need not speak again for long, is known to have it.
// Another address, or a lease that has run out since, is nothing to take over.
// Call it before Serve.
func (s *Server) Resume(was Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := time.Until(was.Expires)
	if was.State != Bound || was.Address != s.responder.lease.Address || !was.Expires.IsZero() && left <= 0 {
		return
	}
	s.status.Client = was.Client
	s.setState(Bound, max(0, left))
	s.status.Since, s.status.Expires = was.Since, was.Expires
	s.status.Renewed, s.status.Declined = was.Renewed, was.Declined
	s.status.LastEvent, s.status.LastMessage = was.LastEvent, was.LastMessage
	s.announce()
}

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (s *Server) Wait(ctx context.Context, until func(Status) bool) (Status, error) {
	for {
		status, changed := s.snapshot()
		if until(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("wait for DHCP lease on %s: %w", status.Interface, context.Cause(ctx))
		case <-changed:
		}
	}
}

// snapshot is the status and what is closed when it changes.
func (s *Server) snapshot() (Status, <-chan struct{}) {
	dropped := s.conn.Dropped()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops[OverBudget] += dropped
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	status := s.status
	status.Address = s.responder.lease.Address
	status.Received, status.Sent = byType(&s.received), byType(&s.sent)
	for reason, n := range s.drops {
		if n > 0 {
			if status.Dropped == nil {
				status.Dropped = make(map[Silence]uint64)
			}
			status.Dropped[reason] = n
		}
	}
	status.Notes = slices.Clone(s.status.Notes)
	return status, s.changed
}

// tally counts messages by type. The first is for all types that there are not.
type tally [dhcpv4.MessageTypeInform + 1]uint64

func (t *tally) add(m dhcpv4.MessageType) {
	if int(m) >= len(t) {
		m = dhcpv4.MessageTypeNone
	}
	t[m]++
}

func byType(t *tally) map[string]uint64 {
	out := make(map[string]uint64)
	for i, n := range t {
		if n > 0 {
			out[typeName(dhcpv4.MessageType(i))] = n
		}
	}
	return out
}

// typeName is the type's name; those that there are not have one in common.
func typeName(m dhcpv4.MessageType) string {
	if m == dhcpv4.MessageTypeNone || int(m) >= len(tally{}) {
		return "OTHER"
	}
	return m.String()
}

// clientOf reads what the guest says of itself.
func clientOf(req *dhcpv4.DHCPv4) Client {
	id := req.Options[optClientID]
	return Client{
		Hostname:    printable(req.Options[optHostname]),
		VendorClass: printable(req.Options[optVendorClass]),
		ID:          fmt.Sprintf("%x", id[:min(len(id), maxPart)]),
	}
}

// printable makes text of what the guest sent as such.
func printable(b []byte) string {
	b = b[:min(len(b), maxPart)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))
}
