package prestart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// restoreTime is how long it may take to put back an interface where who asked for it does
// not bound that, since it is to be done though his context has ended: others may be at work
// in the state directory for as long as the CNI takes.
const restoreTime = 10 * time.Second

// Plug prepares one more pod interface, serves and checks it as Run does, gives it to
// the domain if the session has one, and watches it until Unplug or Close. The NIC is the
// guest's side of it, as [Session.NICs] has it from then on. On error the
// others are untouched, and an interface that was not prepared before is as the CNI left
// it; but if the error wraps [domain.ErrNoAnswer] the domain may get the NIC yet, and so
// it stays plugged in, until Unplug. What it has no options of its own for is as in the Hook, but for MAC and names of
// links, which are for one interface. A VM that runs is told of no other default route
// than before; the new NIC gets one only if no other could.
//
// It acts in the pod's network namespace as the Hook's methods do, and needs the
// privileges of Run, which a Hook's Hotplug gives it. A server that fails later does not
// end the session: Status and Events say so. The next Run serves the interface, too.
func (s *Session) Plug(ctx context.Context, name string, own InterfaceOptions) (domain.NIC, error) {
	n, err := s.plugWith(ctx, name, s.hook.optionsFor(name, own), 0)
	if err != nil {
		return domain.NIC{}, err
	}
	return n.domainNIC(), nil
}

// plugWith is Plug with all options, and with another time to wait for the CNI if that
// is not 0.
func (s *Session) plugWith(ctx context.Context, name string, o InterfaceOptions, timeout time.Duration) (n *nic, err error) {
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	if err := s.enterSet(ctx); err != nil {
		return nil, fmt.Errorf("plug %s: %w", name, err)
	}
	defer s.leaveSet()
	if s.nic(name) != nil {
		return nil, fmt.Errorf("plug %s: %w", name, ErrPlugged)
	}
	h := s.hookOf(name, o)
	h.plugged, h.Timeout = &o, cmp.Or(timeout, h.Timeout)
	err = s.in(func() (err error) {
		n, err = s.plug(ctx, h)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("plug %s: %w", name, err)
	}
	return n, nil
}

// enterSet waits until nobody else changes the set of NICs, which may take as long as the
// CNI takes, or ctx ends. It fails once the session has ended. leaveSet is for the next one.
func (s *Session) enterSet(ctx context.Context) error {
	select {
	case s.setting <- struct{}{}:
	case <-s.done.Done():
		return s.ended()
	case <-ctx.Done():
		return fmt.Errorf("wait for another change of the VM's NICs: %w", context.Cause(ctx))
	}
	if err := s.ended(); err != nil {
		s.leaveSet()
		return err
	}
	return nil
}

func (s *Session) leaveSet() { <-s.setting }

// whileOpen is ctx until the session ends.
func (s *Session) whileOpen(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.done, func() { cancel(s.ended()) }) //nolint:contextcheck // s.done is the session's, not the caller's
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// in runs fn in the network namespace that is served, with a Hotplug one function after
// the other.
func (s *Session) in(fn func() error) error {
	there := func() error { return s.there(fn) }
	switch h := s.hook.Hotplug; {
	case h == nil:
		return in(s.hook.Netns, there)
	case h.Privileged == nil:
		return s.plugging.do(there)
	default:
		return s.plugging.do(func() error { return h.Privileged(there) })
	}
}

// there runs fn if the current network namespace is the one that is served. Another may
// have come to be at its path, as at that of a process, or the caller's thread may be in
// another.
func (s *Session) there(fn func() error) error {
	now, err := statedir.Current()
	if err == nil && !now.Same(s.hook.namespace) {
		err = fmt.Errorf("it would be in %s, and the session serves %s", now, s.hook.namespace)
	}
	if err != nil {
		return err
	}
	return fn()
}

// hookOf is that of the session for one more interface, with these options, which are
// complete. What the VM is told of the pod is what it was told at the start: there may
// be no privileges left to read it again.
func (s *Session) hookOf(name string, o InterfaceOptions) Hook {
	h := s.hook
	h.Interfaces, h.Domain, h.Force, h.Forwards, h.resume = []string{name}, nil, false, nil, false
	lease := *o.Lease
	lease.Hostname = cmp.Or(lease.Hostname, s.pod.Hostname)
	if len(lease.DNS) == 0 {
		lease.DNS = s.pod.DNS.Servers
	}
	if len(lease.Search) == 0 {
		lease.Search = s.pod.DNS.Search
	}
	h.PerInterface = map[string]InterfaceOptions{name: {o.Network, &lease, o.Model}}
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
	h = p.hook
	defer func() {
		if err == nil || errors.Is(err, domain.ErrNoAnswer) { // else the domain would get a NIC whose tap is gone
			return
		}
		if n != nil {
			err = errors.Join(err, s.remove(n))
		}
		n, err = nil, errors.Join(err, h.withdraw(ctx, p), h.forget(h.Interfaces[0]))
	}()
	added := h.nicsFor(p.plans, h.Interfaces...)[0]
	added.options = h.plugged
	if err := distinctMACs(append(guestsOf(s.current()), added.NIC)); err != nil {
		return nil, err
	}
	recorded, err := h.recorded()
	if err != nil {
		return nil, err
	}
	if err := s.addTo(ctx, len(s.current()), added, p.pod, recorded); err != nil {
		return nil, err
	}
	if err := s.check(ctx, added); err != nil {
		return added, err
	}
	if err := s.handOver(); err != nil {
		return added, err
	}
	if vm := s.domain(); vm != nil {
		err = vm.Plug(ctx, added.domainNIC())
	}
	if errors.Is(err, domain.ErrNoAnswer) {
		err = fmt.Errorf("%w: the domain may get the NIC yet, so it stays plugged in and served: unplug it, once libvirt answers, if the VM is not to have it", err)
	}
	return added, err
}

// addTo is add to NICs that there are, of those that are recorded.
func (s *Session) addTo(ctx context.Context, place int, n *nic, pod discover.Pod, recorded []prepare.Plan) error {
	all := guestsOf(slices.Insert(s.current(), place, n))
	d := defaultRoutes{}
	if named := s.hook.Lease.DefaultRoute; named == "" || slices.Contains(namesOf(all), named) {
		var err error
		if d, err = s.hook.defaultRouteOf(all, recorded); err != nil {
			return err
		}
	}
	return s.add(ctx, place, n, pod, d)
}

// Unplug takes a NIC from the domain, if the session has one, ends serving its pod
// interface, and puts that back as the CNI left it. The guest has until ctx ends to
// release the NIC, or the error wraps [domain.ErrNotReleased]. Where the VM is another's
// and has its tap open nothing is done, and the error wraps [check.ErrTapInUse]. On error
// the interface is prepared and served as before, and the NIC is the VM's, but where it is
// put back already and only the files about it could not be removed. One that is
// served without a record is only served no more. An interface that is not the session's
// is a [discover.NotFoundError].
func (s *Session) Unplug(ctx context.Context, name string) error {
	ctx, cancel := s.whileOpen(ctx)
	defer cancel()
	if err := s.enterSet(ctx); err != nil {
		return fmt.Errorf("unplug %s: %w", name, err)
	}
	defer s.leaveSet()
	n := s.nic(name)
	if n == nil {
		return fmt.Errorf("unplug: of the VM's NICs, %w", &discover.NotFoundError{Interface: name, There: namesOf(guestsOf(s.current()))})
	}
	if err := s.release(ctx, n); err != nil {
		return fmt.Errorf("unplug %s: %w", name, err)
	}
	vm := s.domain()
	if vm == nil {
		if err := s.in(func() error { return s.unplug(ctx, n) }); err != nil {
			return fmt.Errorf("unplug %s: %w", name, err)
		}
		return nil
	}
	restoring, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime) // the VM has released the NIC
	defer cancel()
	err := s.in(func() error { return s.unplug(restoring, n) })
	if err == nil {
		return nil
	}
	if s.nic(name) == nil { // the domain could not open a tap that is gone
		return fmt.Errorf("unplug %s: %w", name, err)
	}
	again, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime)
	defer cancel()
	return fmt.Errorf("unplug %s: %w", name, errors.Join(err, vm.Plug(again, n.domainNIC())))
}

// release has the session's VM, if there is one, give back a NIC that can be restored.
func (s *Session) release(ctx context.Context, n *nic) error {
	vm := s.domain()
	if vm == nil {
		return nil
	}
	if err := s.in(func() error { return s.restorable(ctx, n) }); err != nil {
		return err
	}
	return vm.Unplug(ctx, n.domainNIC())
}

// restorable tells why a NIC could not be put back, before it is closed.
func (s *Session) restorable(ctx context.Context, n *nic) error {
	if n.plan.Load() == nil { // it is served without a record, and only served no more
		return nil
	}
	if err := prepare.CheckPrivileges(); err != nil {
		return err
	}
	if err := s.keeper.restorable(ctx, n); err != nil {
		return err
	}
	return statedir.CheckWritable(n.hook.StateDir) // or the record would stay, and the next Run would plug it in again
}

// unplug acts in the current network namespace.
func (s *Session) unplug(ctx context.Context, n *nic) error {
	h := n.hook
	h.Interfaces, h.Force = []string{n.Interface}, false
	if err := h.unused(ctx, n.NIC); err != nil { // before anything is closed
		return err
	}
	if err := s.restorable(ctx, n); err != nil {
		return err
	}
	place := slices.Index(s.current(), n)
	err := s.remove(n)
	if err == nil {
		err = s.handOver()
	}
	if err == nil && n.plan.Load() != nil {
		_, _, err = h.restore(ctx)
	}
	if err == nil || errors.Is(tun.Exists(n.Tap), tun.ErrMissing) {
		return err
	}
	again := &nic{NIC: n.NIC, hook: n.hook, plugged: n.plugged, options: n.options}
	again.plan.Store(n.plan.Load())
	recorded, readErr := h.recorded()
	return errors.Join(err, readErr, s.addTo(ctx, place, again, s.pod, recorded), s.handOver())
}

// unused returns an error that wraps [check.ErrTapInUse] if a VM has the tap open.
func (h Hook) unused(ctx context.Context, n guest.NIC) error {
	inUse, err := check.UsedByVM(ctx, n.Tap)
	if inUse {
		return fmt.Errorf("restore %s: %w: %s; a VM that has it would lose its network: stop it, or take the NIC from it, first", n.Interface, check.ErrTapInUse, n.Tap)
	}
	return err
}

// distinctMACs refuses two NICs of a VM that have one MAC.
func distinctMACs(nics []guest.NIC) error {
	owner := map[mac.Addr]string{}
	for _, n := range nics {
		if other, taken := owner[n.MAC]; taken {
			return fmt.Errorf("interfaces %s and %s both have the MAC %s: choose another", other, n.Interface, n.MAC)
		}
		owner[n.MAC] = n.Interface
	}
	return nil
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
