package prestart

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Event is something that happened in a [Session]: a step in the life of a lease,
// that a NIC is not served any more, or that the VM's network became ready or is no
// more.
type Event struct {
	At time.Time
	// Interface is the pod's; empty: readiness has changed.
	Interface string
	// Protocol is DHCPv4 or DHCPv6, and Lease the step, such as offered, bound,
	// renewed, released or declined; nil: it is about no lease.
	Protocol string
	Lease    *lease.Event
	// Err is a [*ServeError], of an interface that was plugged in; nil: it is served.
	// One that was there from the start ends the session: see [Session.Wait].
	Err error
	// Ready is whether a guest could boot now, as in [control.Status].
	Ready bool
}

// Protocols of an [Event].
const (
	DHCPv4 = "dhcpv4"
	DHCPv6 = "dhcpv6"
)

// reader is who reads events.
type reader struct {
	ctx     context.Context
	events  chan Event
	sources sync.WaitGroup
}

// Events returns what happens from now on, until ctx ends or the session is
// closed, which closes the channel. Those of one interface and protocol come in
// their order. Nobody waits for a reader that is slow: of each lease 64 steps are
// kept for it, and the next one says in Missed how many were lost; of readiness it
// gets what is so when it reads. What is not read when the channel is closed is lost. NICs
// that are plugged in later are among them.
func (s *Session) Events(ctx context.Context) <-chan Event {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.done, cancel) //nolint:contextcheck // s.done is the session's, not the caller's
	r := &reader{ctx: ctx, events: make(chan Event)}
	ready, changed := s.readiness()
	r.sources.Go(func() { r.tellReadiness(s, ready, changed) })
	s.mu.Lock()
	s.readers[r] = true
	nics := slices.Clone(s.nics) // of a later one the reader is told
	s.mu.Unlock()
	for _, n := range nics {
		r.follow(s, n) //nolint:contextcheck // likewise
	}
	go func() {
		<-ctx.Done()
		stop()
		cancel()
		s.mu.Lock()
		delete(s.readers, r) // so no source comes any more
		s.mu.Unlock()
		r.sources.Wait()
		close(r.events)
	}()
	return r.events
}

// follow sends the reader what becomes of a NIC's leases. It may write lines of the log,
// so no lock is held.
func (r *reader) follow(s *Session, n *nic) {
	for protocol, server := range map[string]lease.Server{DHCPv4: n.lease, DHCPv6: n.lease6} {
		if server == nil {
			continue
		}
		ctx, cancel := context.WithCancel(r.ctx)
		stop := context.AfterFunc(n.done, cancel)
		steps := server.Events(ctx)
		r.sources.Go(func() {
			defer cancel()
			defer stop()
			for step := range steps {
				ready, _ := s.readiness()
				r.send(Event{At: step.At, Interface: n.Interface, Protocol: protocol, Lease: &step, Ready: ready})
			}
		})
	}
}

func (r *reader) tellReadiness(s *Session, was bool, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-r.ctx.Done():
			return
		}
		var now bool
		if now, changed = s.readiness(); now != was {
			was = now
			r.send(Event{At: time.Now(), Ready: now})
		}
	}
}

func (r *reader) send(e Event) {
	select {
	case r.events <- e:
	case <-r.ctx.Done():
	}
}

// tell sends an event to all readers.
func (s *Session) tell(e Event) {
	e.Ready, _ = s.readiness()
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.readers {
		r.sources.Go(func() { r.send(e) })
	}
}

// readiness returns whether a guest could boot, and what is closed when that may
// have changed.
func (s *Session) readiness() (ready bool, changed <-chan struct{}) {
	s.mu.Lock()
	ready, changed = !s.started.IsZero() && len(s.notServed) == 0, s.changed
	nics := slices.Clone(s.nics)
	s.mu.Unlock()
	return ready && !slices.ContainsFunc(nics, func(n *nic) bool { return !n.isReady() }), changed
}

// waitFor blocks until the condition holds or ctx ends.
func (s *Session) waitFor(ctx context.Context, condition string) error {
	again := time.NewTicker(lasting) // of a sysctl that changes nobody tells
	defer again.Stop()
	for {
		ready, changed := s.readiness()
		if ready {
			if condition == control.ForNetwork {
				return nil
			}
			err := s.WaitLease(ctx)
			if serveErr := (*ServeError)(nil); !errors.As(err, &serveErr) || s.done.Err() != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-again.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done.Done():
			return s.ended()
		}
	}
}

// WaitLease blocks until the guest has the addresses of the named pod interfaces, or
// of all that are served now if none are named: the IPv4 one of each if it has one,
// since not every guest asks for an IPv6 address. While nobody has the tap open there is
// no guest that has them; the lease of the last one counts when the tap is opened again,
// until the guest asks anew. An interface that nothing is leased on is nothing to wait
// for; one that is unplugged meanwhile is neither, unless it is named. An interface that
// is not the session's is a [discover.NotFoundError], one that is not served any more a
// [*ServeError]; a session that is closed meanwhile [ErrSessionClosed]; else the error
// wraps that of ctx.
func (s *Session) WaitLease(ctx context.Context, interfaces ...string) error {
	nics := s.current()
	there := namesOf(guestsOf(nics))
	for _, name := range interfaces {
		if !slices.Contains(there, name) {
			return &discover.NotFoundError{Interface: name, There: there}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.done, func() { cancel(ErrSessionClosed) })() //nolint:contextcheck // as above
	for _, n := range nics {
		named := slices.Contains(interfaces, n.Interface)
		if len(interfaces) > 0 && !named {
			continue
		}
		switch err := n.waitForLease(ctx); {
		case errors.Is(err, errClosed) && s.done.Err() != nil:
			return ErrSessionClosed
		case errors.Is(err, errClosed) && named:
			return &discover.NotFoundError{Interface: n.Interface, There: namesOf(guestsOf(s.current()))}
		case err != nil && !errors.Is(err, errClosed):
			return err
		}
	}
	return nil
}
