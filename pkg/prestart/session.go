package prestart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Session is what lives on after the VM may start: what serves and watches each of
// the VM's NICs, the control socket and, if the Hook has a Domain, the VM. NICs come
// and go by Plug and Unplug. Close it. The pod's network stays prepared after that,
// and a VM that is not ours keeps it. Its methods can be called from any goroutine.
type Session struct {
	hook     Hook
	serving  *statedir.Serving
	since    time.Time
	prepared time.Time // when the network was
	control  *control.Server
	keeper   *keeper
	restore  bool         // at the end
	undo     func() error // of what Run has prepared, which fails; nil: nothing is to be undone
	pinned   *os.File     // the pod's network namespace, where only the calling thread was in it; nil: all are
	netns    *netns       // the pod's, for restore and forwards; nil: not needed
	plugging *netns       // the pod's, for Plug and Unplug of a Hotplug; nil: there is none
	pod      discover.Pod // whose VM it is

	done    context.Context // ends with the first failure, or Close
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	closing sync.Once
	setting chan struct{} // has one in it while the set of NICs changes
	files   sync.Mutex    // held while those in the output directory are written

	mu   sync.Mutex
	nics []*nic // the primary one first
	// notServed is why interfaces that were to be added are not served.
	notServed map[string]error
	changed   chan struct{} // closed when readiness may have changed
	readers   map[*reader]bool
	started   time.Time  // when a guest could boot; zero: it can't yet
	vm        *domain.VM // nil: there is none
	closed    bool
}

// open opens what serves the NICs, in the current network namespace, of whose pod these
// plans are recorded, sets it going, and answers who asks.
func (s *Session) open(ctx context.Context, pod discover.Pod, nics []*nic, recorded []prepare.Plan) (err error) {
	s.prepared, s.pod = time.Now(), pod
	if err := s.hook.checkNamed(namesOf(guestsOf(nics))); err != nil {
		return err
	}
	var d defaultRoutes
	if len(nics) > 0 {
		if d, err = s.hook.defaultRouteOf(guestsOf(nics), recorded); err != nil {
			return err
		}
	}
	if s.hook.Netns == "" { // whoever calls the session's methods may be elsewhere
		if s.pinned, err = pin(); err != nil {
			return err
		}
		if s.pinned != nil {
			s.hook.Netns = fmt.Sprintf("/proc/self/fd/%d", s.pinned.Fd())
		}
	}
	if s.hook.RestoreAfter || len(s.hook.Forwards) > 0 {
		if s.netns, err = enterAhead(s.hook.Netns); err != nil {
			return err
		}
	}
	if s.hook.Hotplug != nil { // a thread of its own: it may have to wait
		if s.plugging, err = enterAhead(s.hook.Netns); err != nil {
			return err
		}
	}
	if s.control, err = control.NewServer(s.hook.StateDir, s.Status, s.waitFor); err != nil {
		return err
	}
	if !s.hook.PodSocket {
		s.answerPlugs()
		s.keeper = s.hook.newKeeper(s.control)
	}
	for _, text := range pod.DNS.LeftOut { // which discover has logged
		nics[0].omitted = append(nics[0].omitted, discover.Omission{What: "resolv.conf", Why: text})
	}
	for i, n := range nics {
		if err := s.add(ctx, i, n, pod, d); err != nil {
			return err
		}
	}
	if err := s.forward(ctx, guestsOf(nics)); err != nil {
		return err
	}
	if err := s.listen(ctx); err != nil { // the VM can do without
		s.hook.Log.Warn("can't open the control socket, so status and wait do not work: trying again", "error", err)
	}
	context.AfterFunc(s.done, s.control.Close) //nolint:contextcheck // s.done is the session's, not the caller's
	s.running.Go(func() { s.keeper.follow(s.done) })
	return nil
}

// listen answers who asks, in the current network namespace.
func (s *Session) listen(ctx context.Context) error {
	if !s.hook.PodSocket {
		return s.control.Listen(ctx)
	}
	socket, err := control.OpenPodSocket()
	if err == nil {
		s.running.Go(func() { s.control.ServePod(s.done, s.hook.Log, socket) })
	}
	return err
}

// add opens and starts what serves a NIC, and puts it in its place among the others.
func (s *Session) add(ctx context.Context, place int, n *nic, pod discover.Pod, d defaultRoutes) error {
	if s.hook.Repair {
		n.repairer = newRepairer(func(ctx context.Context) (bool, error) { return s.repairTables(ctx, n.Interface) })
	}
	if err := n.open(pod, d, s.notify, s.portsChanged); err != nil {
		return err
	}
	s.keeper.add(n)
	n.start(ctx, func(err error) { s.failed(n, err) })
	s.mu.Lock()
	s.nics = slices.Insert(s.nics, place, n)
	readers := slices.Collect(maps.Keys(s.readers))
	for _, r := range readers {
		r.sources.Add(1) // so that its channel is not closed meanwhile
	}
	s.mu.Unlock()
	for _, r := range readers {
		r.follow(s, n) //nolint:contextcheck // it follows as long as the reader reads
		r.sources.Done()
	}
	s.notify()
	return nil
}

// failed ends the session if the NIC was there from the start.
func (s *Session) failed(n *nic, err error) {
	if !n.plugged {
		s.cancel(err)
		return
	}
	s.tell(Event{At: time.Now(), Interface: n.Interface, Err: err})
	s.notify()
	if failed, ok := errors.AsType[*ServeError](err); ok && s.hook.Failed != nil {
		s.hook.Failed(failed)
	}
}

// start proves the path and starts the domain, in the current network namespace.
func (s *Session) start(ctx context.Context, xml []byte) (err error) {
	var inUse error
	for _, n := range s.current() {
		err := s.check(ctx, n)
		if errors.Is(err, check.ErrTapInUse) && s.hook.Domain != nil {
			inUse = err // by the domain itself, it may be
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := s.handOver(); err != nil {
		return err
	}
	var vm *domain.VM
	if d := s.hook.Domain; d != nil {
		ctx, cancel := context.WithTimeoutCause(ctx, d.StartTimeout, &StartTimeoutError{d.StartTimeout})
		defer cancel()
		if vm, err = s.startDomain(ctx, d.URI, xml, inUse); err != nil {
			return err
		}
	}
	s.becomeReady(vm)
	return nil
}

// startDomain starts the domain, or takes it over where it has outlived the session before,
// as one of a libvirtd does. InUse is that something has a tap open already.
func (s *Session) startDomain(ctx context.Context, uri string, xml []byte, inUse error) (*domain.VM, error) {
	err := inUse
	if err == nil {
		var vm *domain.VM
		if vm, err = domain.Start(ctx, s.hook.Log, uri, xml); !errors.Is(err, domain.ErrRunning) {
			return vm, err
		}
	}
	nics := s.current()
	closed, useErr := unusedOf(ctx, nics)
	if useErr != nil {
		return nil, useErr
	}
	if len(closed) == len(nics) {
		return nil, fmt.Errorf("%w; it can't be taken over: it has none of the pod's taps open, because they were deleted meanwhile, or it is another pod's", err)
	}
	// One that it has not is no reason to leave the others unserved: its guest may have released it.
	open := slices.DeleteFunc(slices.Clone(nics), func(n *nic) bool { return slices.Contains(closed, n) })
	vm, takeErr := domain.TakeOver(ctx, s.hook.Log, uri, xml, each(open, func(n *nic) string { return n.Tap })...)
	if errors.Is(takeErr, domain.ErrNotRunning) {
		return nil, fmt.Errorf("%w; %w", err, takeErr)
	}
	if takeErr == nil {
		for _, n := range closed {
			s.hook.Log.Error("the VM has no network by this NIC: it does not have the tap open, which was deleted meanwhile, or the VM has no such NIC: it was released, or not attached yet", "interface", n.Interface, "tap", n.Tap, "remedy", "end the VM and start it again; or unplug the NIC, and plug it in again if the VM is to have it")
		}
	}
	return vm, takeErr
}

// unusedOf are those of the NICs whose tap no VM has open, in the current network
// namespace.
func unusedOf(ctx context.Context, nics []*nic) (unused []*nic, err error) {
	for _, n := range nics {
		inUse, err := check.UsedByVM(ctx, n.Tap)
		if err != nil {
			return nil, err
		}
		if !inUse {
			unused = append(unused, n)
		}
	}
	return unused, nil
}

// check proves that a guest on the tap gets its network. It leaves out a tap that
// a VM has open already: that proves itself.
func (s *Session) check(ctx context.Context, n *nic) error {
	if s.hook.SkipCheck {
		return nil
	}
	report, err := checkNIC(ctx, n.NIC, n.plan.Load().WaitForwarding, func() (control.Status, error) { return s.Status(), nil })
	if errors.Is(err, check.ErrTapInUse) && s.hook.Domain == nil {
		s.hook.Log.Info("check skipped: the tap is in use", "tap", n.Tap)
		return nil
	}
	if err != nil {
		return &CheckError{n.Interface, err}
	}
	n.untilClosed(ctx)
	fields := []slog.Attr{
		slog.String("interface", n.Interface), slog.Any("offered", report.Address), slog.Any("offered6", report.Address6),
		slog.Any("gateway", report.Gateway), slog.Any("router6", report.Router6), slog.String("note", report.Note),
	}
	fields = slices.DeleteFunc(fields, func(f slog.Attr) bool { v := f.Value.Any(); return v == "" || v == (netip.Addr{}) })
	s.hook.Log.LogAttrs(ctx, slog.LevelInfo, "check passed: a guest gets its network", fields...)
	return nil
}

func (s *Session) becomeReady(vm *domain.VM) {
	s.mu.Lock()
	s.vm, s.started = vm, time.Now()
	s.mu.Unlock()
	s.notify()
	s.hook.Log.Info("ready", "took", s.started.Sub(s.since).Round(time.Microsecond))
}

// notify wakes who waits for a change.
func (s *Session) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// ended is why the session has: a failure, or Close; nil: it has not.
func (s *Session) ended() error { return context.Cause(s.done) }

// current are the NICs that there are now.
func (s *Session) current() []*nic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.nics)
}

// domain is the VM, or nil.
func (s *Session) domain() *domain.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vm
}

// GuardCounters reads what the port guard kept from crossing, by pod interface,
// from whatever goroutine. It needs NET_ADMIN, now and when the session was
// opened; the error wraps [unix.EPERM] if it is not there. Of a session that is
// closed it is [ErrSessionClosed]. Where a guard can't be read, the others' are returned
// beside the error.
func (s *Session) GuardCounters() (map[string][]prepare.GuardCounter, error) {
	counters := map[string][]prepare.GuardCounter{}
	var errs []error
	for _, n := range s.current() { // without the lock: the kernel may take its time
		if n.guard == nil {
			continue
		}
		c, err := n.plan.Load().GuardCounters(n.guard)
		if err != nil && n.done.Err() != nil && n.failure() == nil {
			continue // it was closed meanwhile
		}
		if len(c) > 0 {
			counters[n.Interface] = c
		}
		errs = append(errs, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrSessionClosed
	}
	return counters, errors.Join(errs...)
}

// Interfaces returns the pod interfaces that are served, the primary one first.
func (s *Session) Interfaces() []Interface {
	return together(each(s.current(), (*nic).describe))
}

// Serves tells whether the network namespace at path is the one that the session serves.
// That lives as long as the session, also where its path is another one's by now.
func (s *Session) Serves(path string) (bool, error) {
	now, err := statedir.Of(path)
	if errors.Is(err, statedir.ErrNoNamespace) {
		return false, nil
	}
	return err == nil && now.Same(s.hook.namespace), err
}

// Embedded reports whether there is a VM whose driver runs in this process and
// may need its privileges to end it.
func (s *Session) Embedded() bool { vm := s.domain(); return vm != nil && vm.Embedded() }
