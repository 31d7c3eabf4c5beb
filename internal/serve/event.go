package serve

import (
	"context"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// EventsAhead is how many events wait for a reader of Events.
const EventsAhead = 64

// Events is that of [lease.Server].
func (s *Server) Events(ctx context.Context) <-chan lease.Event {
	r := &reader{events: make(chan lease.Event, EventsAhead)}
	s.CatchUp() // of what is over it hears nothing
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

// reader is a reader of events and how many it has missed.
type reader struct {
	events chan lease.Event
	missed int
}

func (r *reader) tell(e lease.Event) {
	e.Missed = r.missed
	select {
	case r.events <- e:
		r.missed = 0
	default:
		r.missed++
	}
}

// Resume is that of [lease.Server].
func (s *Server) Resume(was lease.Status) {
	s.Update(func(e Entry) {
		now := time.Now()
		// The clock may have been set back meanwhile: it ends no later than it would have
		// after its last step.
		left := min(was.Expires.Sub(now), was.Expires.Sub(was.LastEvent.At))
		switch {
		case was.Address != e.Address:
			return
		case was.State == lease.Bound && !was.Expires.IsZero() && left <= 0: // while nobody served
			e.Since = was.Expires
			was.LastEvent = lease.Event{Type: lease.EventExpired, At: was.Expires, Address: e.Address, Client: was.Client}
		case was.State == lease.Bound:
			e.Client = was.Client // whom the log names
			// From now on by a clock that nobody sets, which what was saved is not.
			e.set(lease.Bound, max(0, left), now)
			e.Since = was.Since
		case was.State == lease.None, was.State == lease.Offered: // by its last step
			e.State, e.Since = was.State, was.Since
		default:
			return
		}
		e.Client, e.Renewed, e.Declined = was.Client, was.Renewed, was.Declined
		e.LastEvent, e.LastMessage = was.LastEvent, was.LastMessage
	})
}

// maxPrintable is how much is kept of what a guest says of itself.
const maxPrintable = 255

// Printable makes text of what a guest sent as such.
func Printable(b []byte) string {
	b = b[:min(len(b), maxPrintable)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))
}
