package prestart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Plug prepares one more pod interface, serves and checks it as Run does, and watches
// it until Unplug or Close. On error the others are untouched, and an interface that
// was not prepared before is as the CNI left it. It has the options of the Hook, but
// for MAC and names of links, which are for one interface. A VM that runs is told of
// no other default route than before; the new NIC gets one only if no other could.
//
// It acts in the pod's network namespace as the Hook's methods do, and needs the
// privileges of Run. A server that fails later does not end the session: Status and
// Events say so.
func (s *Session) Plug(ctx context.Context, name string) (guest.NIC, error) {
	s.setting.Lock()
	defer s.setting.Unlock()
	if err := s.ended(); err != nil {
		return guest.NIC{}, err
	}
	if s.nic(name) != nil {
		return guest.NIC{}, fmt.Errorf("plug %s: it is plugged in already", name)
	}
	h := s.hookOf(name)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.done, func() { cancel(s.ended()) })() //nolint:contextcheck // s.done is the session's, not the caller's
	var n *nic
	if err := s.in(func() (err error) {
		n, err = s.plug(ctx, h)
		return err
	}); err != nil {
		return guest.NIC{}, fmt.Errorf("plug %s: %w", name, err)
	}
	return n.NIC, nil
}

// in runs fn in the network namespace that is served. Another may have come to be at
// its path, as at that of a process, or the caller's thread may be in another.
func (s *Session) in(fn func() error) error {
	return in(s.hook.Netns, func() error {
		now, err := statedir.Current()
		if err == nil && !now.Same(s.hook.namespace) {
			err = fmt.Errorf("it would be in %s, and the session serves %s", now, s.hook.namespace)
		}
		if err != nil {
			return err
		}
		return fn()
	})
}

// hookOf is that of the session for one more interface.
func (s *Session) hookOf(name string) Hook {
	h := s.hook
	h.Interfaces, h.Domain, h.Force, h.Forwards = []string{name}, nil, false, nil
	h.PerInterface = maps.Clone(h.PerInterface)
	maps.DeleteFunc(h.PerInterface, func(of string, _ InterfaceOptions) bool { return of != name })
	h.Network.MAC, h.Network.Names = mac.Addr{}, nil
	if d := h.Lease.DefaultRoute; d != NoDefaultRoute && d != name {
		h.Lease.DefaultRoute = "" // which of all has it is told below
	}
	return h
}

// plug acts in the current network namespace.
func (s *Session) plug(ctx context.Context, h Hook) (n *nic, err error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	p, err := h.prepare(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		if n != nil {
			err = errors.Join(err, s.remove(n))
		}
		n, err = nil, errors.Join(err, h.withdraw(ctx, p))
	}()
	added := h.nicsFor(p.plans)[0]
	added.plugged = true
	if err := s.addTo(ctx, len(s.current()), added, p.pod); err != nil {
		return nil, err
	}
	if err := s.check(ctx, added); err != nil {
		return added, err
	}
	return added, s.handOver()
}

// addTo is add to NICs that there are.
func (s *Session) addTo(ctx context.Context, place int, n *nic, pod discover.Pod) error {
	all := guestsOf(slices.Insert(s.current(), place, n))
	d := defaultRoutes{}
	if named := s.hook.Lease.DefaultRoute; named == "" || slices.Contains(namesOf(all), named) {
		var err error
		if d, err = s.hook.defaultRouteOf(all); err != nil {
			return err
		}
	}
	return s.add(ctx, place, n, pod, d)
}

// Unplug ends serving a pod interface and puts it back as the CNI left it. While a
// VM has its tap open it does nothing, and the error wraps [check.ErrTapInUse]. On
// error it is prepared and served as before. One that is served without a record is
// only served no more. An interface that is not the session's is a
// [discover.NotFoundError].
func (s *Session) Unplug(ctx context.Context, name string) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	if err := s.ended(); err != nil {
		return err
	}
	n := s.nic(name)
	if n == nil {
		return &discover.NotFoundError{Interface: name, There: namesOf(guestsOf(s.current()))}
	}
	if err := s.in(func() error { return s.unplug(ctx, n) }); err != nil {
		return fmt.Errorf("unplug %s: %w", name, err)
	}
	return nil
}

// unplug acts in the current network namespace.
func (s *Session) unplug(ctx context.Context, n *nic) error {
	h := s.hookOf(n.Interface)
	if err := h.unused(ctx, n.NIC); err != nil { // before anything is closed
		return err
	}
	if err := s.keeper.restorable(ctx, n); err != nil {
		return err
	}
	place := slices.Index(s.current(), n)
	err := s.remove(n)
	if err == nil {
		err = s.handOver()
	}
	if err == nil && n.plan.Load() != nil {
		_, err = h.restore(ctx)
	}
	if err == nil {
		return nil
	}
	again := &nic{NIC: n.NIC, hook: n.hook, plugged: n.plugged}
	again.plan.Store(n.plan.Load())
	ctx = context.WithoutCancel(ctx)
	pod, identityErr := s.hook.identity(ctx, []*nic{again})
	if identityErr != nil {
		return errors.Join(err, identityErr)
	}
	return errors.Join(err, s.addTo(ctx, place, again, pod), s.handOver())
}

// unused returns an error that wraps [check.ErrTapInUse] if a VM has the tap open.
func (h Hook) unused(ctx context.Context, n guest.NIC) error {
	inUse, err := check.UsedByVM(ctx, n.Tap)
	if inUse {
		return fmt.Errorf("restore %s: %w: %s; a VM that has it would lose its network: stop it first", n.Interface, check.ErrTapInUse, n.Tap)
	}
	return err
}

// remove ends serving a NIC.
func (s *Session) remove(n *nic) error {
	s.mu.Lock()
	s.nics = slices.DeleteFunc(s.nics, func(o *nic) bool { return o == n })
	s.mu.Unlock()
	s.keeper.remove(n)
	err := n.close()
	s.notify()
	return err
}

// nic returns the NIC of a pod interface; nil: there is none.
func (s *Session) nic(name string) *nic {
	for _, n := range s.current() {
		if n.Interface == name {
			return n
		}
	}
	return nil
}
