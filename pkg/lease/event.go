package journal

import (
	"context"
	"net/netip"
	"time"
)

// EventsAhead is how many events wait for a reader of Events.
const EventsAhead = 64

// EventType is a step in the life of a lease.
type EventType string

// Steps in the life of a lease.
const (
	EventOffered  EventType = "offered"
	EventBound    EventType = "bound"    // also by a guest that came back and asked for its address
	EventRenewed  EventType = "renewed"  // by a guest that has the address
	EventRefused  EventType = "refused"  // the guest asked for another address
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
// the channel. Nobody waits for a reader: while 64 events wait to be read
// further ones are lost to this reader, and the next one that it gets says how
// many.
func (j *Journal) Events(ctx context.Context) <-chan Event {
	r := &reader{events: make(chan Event, EventsAhead)}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.readers[r] = true
	context.AfterFunc(ctx, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.readers, r)
		close(r.events)
	})
	return r.events
}

// reader is a reader of events and how many it has missed.
type reader struct {
	events chan Event
	missed int
}

func (r *reader) tell(e Event) {
	e.Missed = r.missed
	select {
	case r.events <- e:
		r.missed = 0
	default:
		r.missed++
	}
}
