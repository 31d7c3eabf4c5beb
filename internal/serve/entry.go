package journal

import (
	"slices"
	"time"
)

// sourceWarnings is how long after a warning of another MAC there is none of
// yet another one.
const sourceWarnings = 10 * time.Minute

// Entry is one change to a Journal.
type Entry struct{ j *Journal }

// Say logs what a guest can bring about, only so often: beyond, for debugging.
func (e Entry) Say(log func(msg string, args ...any), msg string, args ...any) {
	if !e.j.lines.Spare(time.Now()) {
		log = e.j.log.Debug
	}
	log(msg, args...)
}

// Error keeps an error.
func (e Entry) Error(err error) {
	e.j.status.LastError = Failure{Error: err.Error(), At: time.Now()}
}

// Received counts a message of one of the protocol's types.
func (e Entry) Received(typ string) { e.j.status.Received[typ]++ }

// Sent counts a message of one of the protocol's types.
func (e Entry) Sent(typ string) { e.j.status.Sent[typ]++ }

// Message keeps that the guest has sent a message, which Received has counted.
func (e Entry) Message(typ string) { e.j.status.LastMessage = Message{Type: typ, At: time.Now()} }

// otherSource keeps who asks with another Ethernet address than the guest's. A
// guest can forge one for every message: the last one is kept, and only so many
// are logged.
func (e Entry) otherSource(from, guest string) {
	j, was, now := e.j, e.j.status.OtherSource, time.Now()
	j.status.OtherSource = OtherSource{MAC: from, Want: guest, Count: was.Count + 1, At: now}
	if j.warnedOfSource == from || now.Sub(j.warnedAt) < sourceWarnings {
		return
	}
	j.warnedOfSource, j.warnedAt = from, now
	j.log.Warn("a guest with another MAC than the VM's asks for an address, and gets none", "mac", from, "want", guest, "remedy", j.status.OtherSource.Remedy())
}

// Client keeps what the guest says of itself.
func (e Entry) Client(c Client) { e.j.status.Client = c }

// Note keeps, once, that a setting could not be sent.
func (e Entry) Note(note string) {
	if slices.Contains(e.j.status.Notes, note) {
		return
	}
	e.j.status.Notes = append(e.j.status.Notes, note)
	e.j.log.Warn("setting left out or changed", "setting", note)
}

// Is tells whether the lease has this state.
func (e Entry) Is(state State) bool { return e.j.status.State == state }

// State sets the lease's state for a time, 0 without end.
func (e Entry) State(state State, lasts time.Duration) {
	now := time.Now()
	j, st := e.j, &e.j.status
	if st.State != state {
		if state != None { // why there is no lease any more is said by whoever knows
			e.Say(j.log.Info, "lease is "+string(state), "address", st.Address, "client", st.Client.Hostname)
		}
		st.State, st.Since = state, now
	}
	st.Expires = time.Time{}
	if j.expiry != nil {
		j.expiry.Stop() // if it is too late for that, expire sees that the time is another
		j.expiry = nil
	}
	if lasts > 0 {
		st.Expires = now.Add(lasts)
		j.expiry = time.AfterFunc(lasts, func() { j.Write(Entry.expire) })
	}
}

// Released keeps that the guest gave its address back.
func (e Entry) Released() {
	e.Say(e.j.log.Info, "guest gave up its lease", "address", e.j.status.Address, "client", e.j.status.Client.Hostname)
	e.State(None, 0)
	e.Happened(EventReleased, time.Now())
}

// OtherOffer keeps that the guest took another server's offer.
func (e Entry) OtherOffer() {
	e.Say(e.j.log.Warn, "guest took another server's offer", "address", e.j.status.Address, "client", e.j.status.Client.Hostname)
	e.State(None, 0)
}

// Declined keeps that the guest found its address in use. It is not to have it
// for a while.
func (e Entry) Declined(pause time.Duration) {
	now := time.Now()
	e.State(None, 0)
	e.j.declinedUntil = now.Add(pause)
	e.Happened(EventDeclined, now)
	e.Say(e.j.log.Warn, "guest declined its address: somebody else answers for it", "address", e.j.status.Address, "pause", pause)
}

// Refused keeps that the guest asked for another address than its own; args say
// more of that in the log.
func (e Entry) Refused(args ...any) {
	e.Say(e.j.log.Warn, "guest asked for another address than its own", append([]any{"address", e.j.status.Address}, args...)...)
	e.State(None, 0)
	e.Happened(EventRefused, time.Now())
}

// expire ends a lease that was not renewed in time.
func (e Entry) expire() {
	at := e.j.status.Expires
	if at.IsZero() || time.Now().Before(at) {
		return
	}
	e.Say(e.j.log.Warn, "lease has ended: the guest did not renew it in time", "address", e.j.status.Address, "client", e.j.status.Client.Hostname, "ended", at)
	e.State(None, 0)
	e.j.status.Since = at
	e.Happened(EventExpired, at)
}

// Happened keeps a step of the lease and tells the readers.
func (e Entry) Happened(typ EventType, at time.Time) {
	st := &e.j.status
	event := Event{Type: typ, At: at, Address: st.Address, Client: st.Client}
	st.LastEvent = event
	switch typ {
	case EventRenewed:
		st.Renewed = at
	case EventDeclined:
		st.Declined = at
	}
	for r := range e.j.readers {
		r.tell(event)
	}
}
