package prestart

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Event is something that happened in a [Session]: a step in the life of a lease,
// or that the VM's network became ready or is no more.
type Event struct {
	At time.Time
	// Interface is the pod's, and Protocol DHCPv4 or DHCPv6, if a lease's.
	Interface string
	Protocol  string
	// Lease is the step: offered, bound, renewed, released, declined, …; nil:
	// readiness has changed.
	Lease *lease.Event
	// Ready is whether a guest could boot now, as in [control.Status].
	Ready bool
}

// Protocols of an [Event].
const (
	DHCPv4 = "dhcpv4"
	DHCPv6 = "dhcpv6"
)

// Events returns what happens from now on, until ctx ends or the session is
// closed, which closes the channel. Those of one interface and protocol come in
// their order. Nobody waits for a reader that is slow: of each lease 64 steps are
// kept for it, and the next one says in Missed how many were lost; of readiness it
// gets what is so when it reads.
func (s *Session) Events(ctx context.Context) <-chan Event {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.done, cancel) //nolint:contextcheck // s.done is the servers', not the caller's
	events := make(chan Event)
	var sources sync.WaitGroup
	for _, on := range s.servers {
		for protocol, server := range map[string]leaseServer{DHCPv4: on.lease, DHCPv6: on.lease6} {
			if server == nil {
				continue
			}
			steps := server.Events(ctx)
			sources.Go(func() { s.tellLease(ctx, events, on.plan.Interface.Name, protocol, steps) })
		}
	}
	ready, changed := s.readiness()
	sources.Go(func() { s.tellReadiness(ctx, events, ready, changed) })
	go func() {
		sources.Wait()
		stop()
		cancel()
		close(events)
	}()
	return events
}

func (s *Session) tellLease(ctx context.Context, events chan<- Event, name, protocol string, steps <-chan lease.Event) {
	for step := range steps {
		ready, _ := s.readiness()
		select {
		case events <- Event{At: step.At, Interface: name, Protocol: protocol, Lease: &step, Ready: ready}:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Session) tellReadiness(ctx context.Context, events chan<- Event, was bool, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		var now bool
		if now, changed = s.readiness(); now == was {
			continue
		}
		was = now
		select {
		case events <- Event{At: time.Now(), Ready: now}:
		case <-ctx.Done():
			return
		}
	}
}

// readiness returns whether a guest could boot, and what is closed when that may
// have changed.
func (s *Session) readiness() (ready bool, changed <-chan struct{}) {
	if !s.isReady.Load() {
		return false, s.ready
	}
	differences, changed := s.watch.differences()
	return len(differences) == 0, changed
}

// WaitLease blocks until the guest has the addresses of the named pod interfaces,
// all if none are named: the IPv4 one of each if it has one, since not every guest
// asks for an IPv6 address. An interface that nothing is leased on is nothing to
// wait for. An interface that is not the session's is a [discover.NotFoundError]; a
// session that is closed meanwhile [ErrSessionClosed]; else the error wraps that of
// ctx.
func (s *Session) WaitLease(ctx context.Context, interfaces ...string) error {
	there := namesOf(s.plans)
	for _, name := range interfaces {
		if !slices.Contains(there, name) {
			return &discover.NotFoundError{Interface: name, There: there}
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.done, func() { cancel(ErrSessionClosed) }) //nolint:contextcheck // as above
	defer stop()
	for _, on := range s.servers {
		if len(interfaces) > 0 && !slices.Contains(interfaces, on.plan.Interface.Name) {
			continue
		}
		if err := on.waitForLease(ctx); err != nil {
			return err
		}
	}
	return nil
}
