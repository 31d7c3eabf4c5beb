package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// How much a guest can bring about in the log.
const (
	LinesAtOnce    = 50
	linesPerSecond = 1
)

// Journal is what one server keeps. Make it with New; its methods can be called
// from any goroutine.
type Journal struct {
	protocol string
	log      *slog.Logger
	dropped  func() uint64

	mu            sync.Mutex
	status        Status
	declinedUntil time.Time
	expiry        *time.Timer // ends a finite lease
	// The last MAC that is not the guest's that was warned of, and when.
	warnedOfSource string
	warnedAt       time.Time
	readers        map[*reader]bool
	lines          *packet.Budget // of the log
	changed        chan struct{}  // closed at the next change; nil: nobody waits
}

// New returns the Journal of a server of the protocol on an interface. What it
// keeps it also logs, but of what a guest can bring about only so much. dropped
// tells how many messages the kernel dropped since it was last called.
func New(protocol, name string, log *slog.Logger, dropped func() uint64) *Journal {
	return &Journal{
		protocol: protocol,
		log:      log.With("protocol", protocol),
		dropped:  dropped,
		readers:  make(map[*reader]bool),
		lines:    packet.NewBudget(linesPerSecond, LinesAtOnce),
		status: Status{
			Interface: name, State: None,
			Received: make(map[string]uint64), Sent: make(map[string]uint64), Dropped: make(map[Silence]uint64),
		},
	}
}

// Status tells what is.
func (j *Journal) Status() Status {
	status, _ := j.snapshot()
	return status
}

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (j *Journal) Wait(ctx context.Context, until func(Status) bool) (Status, error) {
	for {
		status, changed := j.snapshot()
		if until(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("wait for %s on %s: %w", j.protocol, status.Interface, context.Cause(ctx))
		case <-changed:
		}
	}
}

// snapshot is the status and what is closed when it changes.
func (j *Journal) snapshot() (Status, <-chan struct{}) {
	dropped := j.dropped()
	j.mu.Lock()
	defer j.mu.Unlock()
	if dropped > 0 {
		j.status.Dropped[OverBudget] += dropped
	}
	if j.changed == nil {
		j.changed = make(chan struct{})
	}
	status := j.status
	status.Received, status.Sent = maps.Clone(status.Received), maps.Clone(status.Sent)
	status.Dropped = maps.Clone(status.Dropped)
	status.Notes = slices.Clone(status.Notes)
	return status, j.changed
}

// Resume takes over what an earlier server knew of this lease, so that a guest
// that has its address, and need not speak again for long, is known to have it.
// Another address, or a lease that has run out since, is nothing to take over.
// Call it before the server serves.
func (j *Journal) Resume(was Status) {
	j.Write(func(e Entry) {
		left := time.Until(was.Expires)
		st := &j.status
		if was.State != Bound || was.Address != st.Address || !was.Expires.IsZero() && left <= 0 {
			return
		}
		st.Client = was.Client
		e.State(Bound, max(0, left))
		st.Since, st.Expires = was.Since, was.Expires
		st.Renewed, st.Declined = was.Renewed, was.Declined
		st.LastEvent, st.LastMessage = was.LastEvent, was.LastMessage
	})
}

// SetLease keeps that the lease is about this address now, and what could not
// be sent of its settings.
func (j *Journal) SetLease(address netip.Prefix, notes []string) {
	for _, note := range notes {
		j.log.Warn("setting left out or changed", "setting", note)
	}
	j.Write(func(Entry) {
		j.status.Address, j.status.Notes = address, notes
		j.declinedUntil = time.Time{}
	})
}

// Fail logs and keeps an error that the server outlives.
func (j *Journal) Fail(err error) {
	j.Write(func(e Entry) {
		e.Say(j.log.Warn, "server goes on after an error", "error", err)
		e.Error(err)
	})
}

// IsDeclined tells whether the guest has declined the address just now.
func (j *Journal) IsDeclined() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Now().Before(j.declinedUntil)
}

// Refuse counts a message that gets no answer. An error that is no Silence does
// not count.
func (j *Journal) Refuse(err error) {
	var why Silence
	if !errors.As(err, &why) {
		return
	}
	j.log.Debug("message dropped", "reason", string(why))
	j.Write(func(Entry) { j.status.Dropped[why]++ })
}

// RefuseSource counts a message that gets no answer since it comes from another
// Ethernet address than the guest's, and keeps and logs which.
func (j *Journal) RefuseSource(why Silence, from, guest net.HardwareAddr) {
	j.Write(func(e Entry) {
		j.status.Dropped[why]++
		e.otherSource(from.String(), guest.String())
	})
}

// Write makes one change, after which those who wait look again. The Entry is
// valid until the function returns, which must not block.
func (j *Journal) Write(change func(Entry)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	change(Entry{j})
	j.announce()
}

// announce wakes those who wait. The lock is held.
func (j *Journal) announce() {
	if j.changed != nil {
		close(j.changed)
		j.changed = nil
	}
}
