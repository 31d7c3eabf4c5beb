package dhcp

import (
	"context"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// What a server knows, and tells, is the same for each protocol: these are the types
// of package journal, whose documentation has their fields in full.
type (
	// Status is what a [Server] knows at one moment, as a value: whether it is
	// Serving on which Interface; the Address, the State of the lease, Since when,
	// and when it Expires; when it was last Renewed and Declined; LastEvent, Client
	// and LastMessage; how many messages were Received and Sent by type, and Dropped
	// by reason; who asked with OtherSource, another MAC; the LastError; and Notes
	// of what could not be sent.
	Status = journal.Status
	// State is how far the guest has come: [None], [Offered] or [Bound].
	State = journal.State
	// Client is what the guest says of itself, which may be anything: Hostname,
	// VendorClass, and ID, which is the client identifier in hexadecimal.
	Client = journal.Client
	// Message is a message's Type, such as "DISCOVER", and when it came (At).
	Message = journal.Message
	// Failure is an Error, as text, and when it happened (At).
	Failure = journal.Failure
	// Event is one step of the lease: its Type, when (At), the Address, what the
	// Client had said of itself by then, and how many events the reader Missed
	// before it.
	Event = journal.Event
	// EventType is a step in the life of a lease, such as [EventBound].
	EventType = journal.EventType
)

// States of the lease.
const (
	None    = journal.None
	Offered = journal.Offered
	Bound   = journal.Bound
)

// Steps in the life of a lease.
const (
	EventOffered  = journal.EventOffered
	EventBound    = journal.EventBound
	EventRenewed  = journal.EventRenewed
	EventRefused  = journal.EventRefused // DHCPNAK
	EventDeclined = journal.EventDeclined
	EventReleased = journal.EventReleased
	EventExpired  = journal.EventExpired
)

// Status tells what is.
func (s *Server) Status() Status { return s.journal.Status() }

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (s *Server) Wait(ctx context.Context, until func(Status) bool) (Status, error) {
	return s.journal.Wait(ctx, until)
}

// Events returns the events from now on, in order, until ctx ends, which closes
// the channel. The server never waits for a reader: while 64 events wait to be
// read further ones are lost to this reader, and the next one that it gets says
// how many.
func (s *Server) Events(ctx context.Context) <-chan Event { return s.journal.Events(ctx) }

// Resume takes over what an earlier server knew of this lease, so that a guest
// that has its address, and need not speak again for long, is known to have it.
// Another address, or a lease that has run out since, is nothing to take over.
// Call it before Serve.
func (s *Server) Resume(was Status) { s.journal.Resume(was) }

// typeName is the type's name; those that there are not have one in common.
func typeName(m dhcpv4.MessageType) string {
	if m == dhcpv4.MessageTypeNone || m > dhcpv4.MessageTypeInform {
		return "OTHER"
	}
	return m.String()
}

// clientOf reads what the guest says of itself.
func clientOf(req *dhcpv4.DHCPv4) Client {
	id := req.Options[optClientID]
	return Client{
		Hostname:    journal.Printable(req.Options[optHostname]),
		VendorClass: journal.Printable(req.Options[optVendorClass]),
		ID:          fmt.Sprintf("%x", id[:min(len(id), maxPart)]),
	}
}
