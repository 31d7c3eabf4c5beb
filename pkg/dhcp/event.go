package dhcp

import (
	"context"
	"net/netip"
	"time"
)

// eventsAhead is how many events wait for a reader of Events.
const eventsAhead = 64

// EventType is a step in the life of a lease.
type EventType string

// Steps in the life of a lease.
const (
	EventOffered  EventType = "offered"
	EventBound    EventType = "bound"    // also by a guest that came back and asked for its address
	EventRenewed  EventType = "renewed"  // by a guest that has the address
	EventRefused  EventType = "refused"  // DHCPNAK: the guest asked for another address
	EventDeclined EventType = "declined" // the guest found that somebody else uses the address
	EventReleased EventType = "released"
	EventExpired  EventType = "expired"
)

// Event is one step of the lease. Our own probes make none.
type Event struct {
	Type EventType `json:"type"`
	At   time.Time `json:"at"`
	// Address is the lease's.
	Address netip.Prefix `json:"address"`
	// Client is what the guest had said of itself by then.
	Client Client `json:"client,omitzero"`
	// Missed is how many events the reader was too slow for just before.
	Missed int `json:"missed,omitempty"`
}

// Events returns the events from now on, in order, until ctx ends, which closes
// the channel. The server never waits for a reader: while 64 events wait to be
// read further ones are lost to this reader, and the next one that it gets says
// how many.
func (s *Server) Events(ctx context.Context) <-chan Event {
	r := &eventReader{events: make(chan Event, eventsAhead)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers[r] = true
	context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.readers, r)
		close(r.events)
	})
	return r.events
}

// eventReader is a reader of events and how many it has missed.
type eventReader struct {
	events chan Event
	missed int
}

// happened keeps an event and tells the readers. The lock is held.
func (s *Server) happened(typ EventType, at time.Time) {
	e := Event{Type: typ, At: at, Address: s.responder.lease.Address, Client: s.status.Client}
	s.status.LastEvent = e
	switch typ {
	case EventRenewed:
		s.status.Renewed = at
	case EventDeclined:
		s.status.Declined = at
	}
	for r := range s.readers {
		e.Missed = r.missed
		select {
		case r.events <- e:
			r.missed = 0
		default:
			r.missed++
		}
	}
}
