package prestart

import (
	"context"
	"errors"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// Open opens a session without NICs, for [Session.Add], which is ready once it has one.
// It changes nothing and does not need the pod to be prepared. Its end is that of Close
// alone.
func (h Hook) Open(ctx context.Context) (*Session, error) {
	return inPod(h, func(h Hook) (*Session, error) {
		h.Domain, h.Forwards, h.RestoreAfter = nil, nil, false
		s, err := h.newSession(ctx)
		if err != nil {
			return nil, err
		}
		if err := s.open(ctx, discover.Pod{}, nil, nil); err != nil {
			return nil, errors.Join(err, s.Close(ctx))
		}
		return s, nil
	})
}

// Add serves one more pod interface, which is prepared already, and watches it until
// Remove or Close. It has these options, whose Network is only for who prepares, and what
// these leave out is that of the Hook. On error the others are untouched, and Status says
// why this one is not served, until Add succeeds or Remove is called. Add acts in the
// pod's network namespace and needs NET_RAW there; NET_ADMIN, too, to watch the port
// guard. A server that fails later does not end the session: Status and Events say so, and
// Hook.Failed is called.
func (s *Session) Add(ctx context.Context, name string, o InterfaceOptions) error {
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	if err := s.enterSet(ctx); err != nil {
		return fmt.Errorf("serve %s: %w", name, err)
	}
	defer s.leaveSet()
	if s.nic(name) != nil {
		return fmt.Errorf("serve %s: it is served already", name)
	}
	h := s.hookOf(name, s.hook.optionsFor(name, o))
	err := s.in(func() error { return s.addPrepared(ctx, h) })
	if serveErr := (*ServeError)(nil); err != nil && !errors.As(err, &serveErr) {
		err = &ServeError{name, err}
	}
	s.mu.Lock()
	if delete(s.notServed, name); err != nil {
		s.notServed[name] = err
	}
	first := err == nil && s.started.IsZero()
	s.mu.Unlock()
	if first {
		s.becomeReady(nil)
	}
	s.notify()
	return err
}

// addPrepared acts in the current network namespace.
func (s *Session) addPrepared(ctx context.Context, h Hook) error {
	if err := h.Validate(); err != nil {
		return err
	}
	recorded, err := h.recorded()
	if err != nil {
		return err
	}
	plans, err := h.named(recorded)
	if err != nil {
		return err
	}
	added := h.nicsFor(plans)[0]
	added.plugged = true
	pod, err := h.identity(ctx, []*nic{added})
	if err != nil {
		return err
	}
	return s.addTo(ctx, len(s.current()), added, pod, recorded)
}

// Remove ends serving a pod interface, which stays prepared; a VM keeps its network. An
// interface that is not the session's is a [discover.NotFoundError].
func (s *Session) Remove(name string) error {
	if err := s.enterSet(s.done); err != nil {
		return err
	}
	defer s.leaveSet()
	s.mu.Lock()
	_, failed := s.notServed[name]
	delete(s.notServed, name)
	s.mu.Unlock()
	n := s.nic(name)
	switch {
	case n == nil && failed:
		s.notify()
		return nil
	case n == nil:
		return &discover.NotFoundError{Interface: name, There: namesOf(guestsOf(s.current()))}
	}
	return s.remove(n)
}
