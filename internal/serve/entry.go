package serve

import (
	"log/slog"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// KeepEnd means, of how long a lease lasts, that its end stays as it is.
const KeepEnd = -1

// Entry is one change of a Server's status, in place.
type Entry struct {
	*lease.Status
	s *Server
}

// Update makes one change, after which those who wait look again. The Entry is valid
// until the function returns, which must not block.
func (s *Server) Update(change func(Entry)) {
	defer s.lines.buffer()()
	s.mu.Lock()
	defer s.mu.Unlock()
	change(Entry{&s.status, s})
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// steps has what state each step leads to, and what the log says of it.
var steps = map[lease.EventType]struct {
	state lease.State
	log   func(log *slog.Logger, msg string, args ...any)
	text  string
}{
	lease.EventOffered:  {state: lease.Offered},
	lease.EventBound:    {state: lease.Bound},
	lease.EventRenewed:  {state: lease.Bound},
	lease.EventRefused:  {lease.None, (*slog.Logger).Warn, "guest asked for another address than its own"},
	lease.EventDeclined: {lease.None, (*slog.Logger).Warn, "guest declined its address: another host uses it"},
	lease.EventReleased: {lease.None, (*slog.Logger).Info, "guest released its lease"},
	lease.EventExpired:  {lease.None, (*slog.Logger).Warn, "lease expired: the guest did not renew it in time"},
}

// Step keeps a step of the lease and tells the readers of it. lasts is how long a
// guest then has its address, 0 without end. args say more in the log.
func (e Entry) Step(typ lease.EventType, lasts time.Duration, args ...any) {
	e.step(typ, lasts, time.Now(), args)
}

func (e Entry) step(typ lease.EventType, lasts time.Duration, at time.Time, args []any) {
	if step := steps[typ]; step.text != "" {
		e.logLease(func(msg string, args ...any) { step.log(e.s.Log, msg, args...) }, step.text, args...)
	}
	if typ == lease.EventBound && e.LastEvent.Type == lease.EventOffered {
		e.State = lease.Offered // it begins anew
	}
	renewed := e.Renewed
	e.set(steps[typ].state, lasts, at)
	event := lease.Event{Type: typ, At: at, Address: e.Address, Client: e.Client}
	e.LastEvent = event
	switch typ {
	case lease.EventRenewed:
		e.Renewed = at
	case lease.EventExpired:
		e.Renewed = renewed // it was not since
	case lease.EventDeclined:
		e.Declined, e.DeclinedUntil = at, at.Add(e.s.DeclinePause)
	}
	for r := range e.s.readers {
		r.tell(event)
	}
}

// set sets the lease's state for a time.
func (e Entry) set(state lease.State, lasts time.Duration, at time.Time) {
	if state == lease.Offered && e.State == lease.Bound && !e.s.left {
		// An offer ends no lease (RFC 2131 §4.3.1): one client of the guest may ask while
		// another has it, and need not say so for long. Who asks after the tap was closed
		// is a guest that has just booted.
		e.logLease(e.s.Log.Info, "guest that has its lease asks for one anew")
		return
	}
	if e.State != state {
		if state != lease.None { // why there is no lease any more is said by whoever knows
			e.logLease(e.s.Log.Info, "lease is "+string(state))
		}
		e.State, e.Since = state, at
		e.Renewed = time.Time{} // a lease before was
	}
	if state == lease.Bound {
		e.s.left = e.NoCarrier
	}
	if lasts == KeepEnd {
		return
	}
	e.Expires = time.Time{}
	if e.s.expiry != nil {
		e.s.expiry.Stop() // if it is too late for that, expire sees that the time is another
		e.s.expiry = nil
	}
	if lasts > 0 {
		e.Expires = at.Add(lasts)
	}
	if lasts > 0 && !e.s.closed {
		e.s.expiry = time.AfterFunc(lasts, func() {
			e.s.CatchUp() // it may have been renewed
			e.s.Update(Entry.expire)
		})
	}
}

// expire ends a lease that was not renewed in time.
func (e Entry) expire() {
	if at := e.Expires; !at.IsZero() && !time.Now().Before(at) && !e.s.closed {
		e.step(lease.EventExpired, 0, at, []any{"ended", at})
	}
}

// stopExpiry leaves the lease as it is.
func (s *Server) stopExpiry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.expiry != nil {
		s.expiry.Stop()
	}
}

func (e Entry) fail(err error) {
	e.LastError = lease.Failure{Error: err.Error(), At: time.Now()}
}

// log logs what a guest can bring about, only so often: beyond, for debugging.
func (e Entry) log(log func(msg string, args ...any), msg string, args ...any) {
	if !e.s.logLines.Allow() {
		log = e.s.Log.Debug
	}
	log(msg, args...)
}

// logLease is log with whose lease it is.
func (e Entry) logLease(log func(msg string, args ...any), msg string, args ...any) {
	whose := []any{"address", e.Address}
	if name := e.Client.Hostname; name != "" {
		whose = append(whose, "client", name)
	}
	e.log(log, msg, append(whose, args...)...)
}
