package prestart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Session is what lives on after the VM may start: the DHCP servers, the
// control socket and, if the Hook has a Domain, the VM. Close it. The pod's
// network stays prepared after that, and a VM that is not ours keeps it.
type Session struct {
	hook     Hook
	plans    []prepare.Plan
	servers  []*servers // of each plan
	watch    *watch
	vm       *domain.VM
	serving  *statedir.Serving
	control  *control.Server
	keeper   *keeper
	guards   *prepare.GuardReader // nil: no plan has a port guard
	since    time.Time
	prepared time.Time     // when the network was
	started  time.Time     // when a guest could boot; read it if isReady
	ready    chan struct{} // closed once a guest could boot
	isReady  atomic.Bool
	cancel   context.CancelFunc
	running  *errgroup.Group
	done     context.Context // ends with the first server that fails
	closing  sync.Once
	restore  bool    // at the end
	pod      *anchor // for that; nil: it does not
}

// Run prepares the pod's network, serves it, proves the path from the guest's
// seat and starts the domain if there is one. It returns when a guest could
// boot, or does. On error nothing of it is left: a pod that was not prepared
// before is as the CNI left it.
func (h Hook) Run(ctx context.Context) (*Session, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	h, err := h.located()
	if err != nil {
		return nil, err
	}
	since := time.Now()
	var s *Session
	err = in(h.Netns, func() error {
		if err := canServe(); err != nil {
			return err
		}
		serving, err := h.serveAlone(ctx)
		if err != nil {
			return err
		}
		p, err := h.prepare(ctx)
		if err != nil {
			serving.Close()
			return err
		}
		h.StateDir = p.dir
		if s, err = h.open(ctx, since, serving, p.pod, p.plans); err == nil {
			if err = s.start(ctx, p.xml); err == nil {
				s.restore = h.RestoreAfter
				return nil
			}
			err = errors.Join(err, s.Close(ctx))
		}
		err = errors.Join(err, h.withdraw(ctx, p))
		if h.RestoreAfter {
			err = errors.Join(err, h.restoreAfter(context.WithoutCancel(ctx), p.plans, 0))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Serve serves DHCP in a pod that is prepared already. It returns once the
// server listens.
func (h Hook) Serve(ctx context.Context) (*Session, error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	h, err := h.located()
	if err != nil {
		return nil, err
	}
	h.Domain = nil
	since := time.Now()
	var s *Session
	err = in(h.Netns, func() error {
		plans, err := h.prepared()
		if err != nil {
			return err
		}
		pod, err := h.discover(ctx, plans)
		if err != nil {
			return err
		}
		serving, err := h.serveAlone(ctx)
		if err != nil {
			return err
		}
		if s, err = h.open(ctx, since, serving, pod, plans); err != nil {
			return err
		}
		s.becomeReady()
		s.restore = h.RestoreAfter
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// serveAlone takes the right to serve the current network namespace. The error says
// who else serves it, or listens in its state directory.
func (h Hook) serveAlone(ctx context.Context) (*statedir.Serving, error) {
	serving, err := statedir.Serve()
	if served, ok := errors.AsType[*statedir.ServedError](err); ok {
		err = &ServedError{served.PID, err}
	}
	if err != nil {
		return nil, err
	}
	if err := control.CheckFree(ctx, h.StateDir); err != nil {
		serving.Close()
		return nil, err
	}
	return serving, nil
}

// open opens the control socket and a server on each tap, in the current
// network namespace, and sets them going. The session, or its failure, gives the
// right to serve back.
func (h Hook) open(ctx context.Context, since time.Time, serving *statedir.Serving, pod discover.Pod, plans []prepare.Plan) (_ *Session, err error) {
	s := &Session{hook: h, serving: serving, plans: plans, since: since, prepared: time.Now(), ready: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeSockets())
			s.pod.close()
		}
	}()
	if err := h.checkNamed(namesOf(plans)); err != nil {
		return nil, err
	}
	defaultRoute, err := h.defaultRouteOf(nicsOf(plans))
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		on, err := h.openServers(p, pod, defaultRoute)
		if err != nil {
			return nil, err
		}
		s.servers = append(s.servers, on)
	}
	for _, text := range pod.DNS.LeftOut { // which discover has logged
		s.servers[0].omitted = append(s.servers[0].omitted, discover.Omission{What: "resolv.conf", Why: text})
	}
	if slices.ContainsFunc(plans, func(p prepare.Plan) bool { return p.Guard }) {
		if s.guards, err = prepare.OpenGuardReader(); err != nil {
			return nil, err
		}
	}
	if s.watch, err = openWatch(h.Log, plans); err != nil {
		return nil, err
	}
	if h.RestoreAfter {
		if s.pod, err = openAnchor(h.Netns); err != nil {
			return nil, err
		}
	}
	s.control = control.NewServer(h.StateDir, h.namespace, s.Status, s.waitFor)
	s.keeper = h.newKeeper(s.control, plans)
	s.serve(ctx)
	return s, nil
}

// serve sets everything going that runs until Close.
func (s *Session) serve(ctx context.Context) {
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.running, ctx = errgroup.WithContext(ctx)
	s.done = ctx
	for _, on := range s.servers {
		on.serve(ctx, s.running, s.hook)
	}
	s.running.Go(func() error {
		<-ctx.Done()
		s.control.Close()
		return nil
	})
	if err := s.control.Listen(ctx); err != nil {
		s.hook.Log.Warn("nobody can ask this server for its status, or wait for it: trying again", "error", err)
	}
	s.running.Go(func() error {
		s.keeper.follow(ctx)
		return nil
	})
	s.running.Go(func() error {
		s.watch.follow(ctx)
		return nil
	})
}

// start proves the path and starts the domain, in the current network namespace.
func (s *Session) start(ctx context.Context, xml []byte) (err error) {
	if !s.hook.SkipCheck {
		for _, p := range s.plans {
			if err := s.check(ctx, p); err != nil {
				return err
			}
		}
	}
	if err := s.hook.handOver(s.plans); err != nil {
		return err
	}
	if d := s.hook.Domain; d != nil {
		ctx, cancel := context.WithTimeoutCause(ctx, d.StartTimeout, fmt.Errorf("no answer within %s", d.StartTimeout))
		defer cancel()
		if s.vm, err = domain.Start(ctx, s.hook.Log, d.URI, xml); err != nil {
			return err
		}
	}
	s.becomeReady()
	return nil
}

// check proves that a guest on the tap gets its network. It leaves out a tap that
// a VM has open already: that proves itself.
func (s *Session) check(ctx context.Context, p prepare.Plan) error {
	report, err := checkPlan(ctx, p, func() (control.Status, error) { return s.Status(), nil })
	if errors.Is(err, check.ErrTapInUse) && s.hook.Domain == nil {
		s.hook.Log.Info("the tap is in use, so it is not checked", "tap", p.Tap.Name)
		return nil
	}
	if err != nil {
		return &CheckError{p.Interface.Name, err}
	}
	s.hook.Log.Info("a guest would get its network", "interface", p.Interface.Name,
		"offered", report.Address, "offered6", report.Address6, "gateway", report.Gateway, "router6", report.Router6, "note", report.Note)
	return nil
}

func (s *Session) becomeReady() {
	s.started = time.Now()
	s.isReady.Store(true)
	close(s.ready)
	s.hook.Log.Info("ready", "took", s.started.Sub(s.since).Round(time.Microsecond))
}

// GuardCounters reads what the port guard kept from crossing, by pod interface,
// from whatever goroutine. It needs NET_ADMIN, now and when the session was
// opened; the error wraps [unix.EPERM] if it is not there.
func (s *Session) GuardCounters() (map[string][]prepare.GuardCounter, error) {
	counters := map[string][]prepare.GuardCounter{}
	for _, p := range s.plans {
		if !p.Guard {
			continue
		}
		c, err := s.guards.Counters(p)
		if err != nil {
			return nil, err
		}
		counters[p.Interface.Name] = c
	}
	return counters, nil
}

// Networks returns what the VM's NICs plug into, the primary one first.
func (s *Session) Networks() []prepare.Network { return networksOf(s.plans) }

// Embedded reports whether there is a VM whose driver runs in this process and
// may need its privileges to end it.
func (s *Session) Embedded() bool { return s.vm != nil && s.vm.Embedded() }

// Wait blocks until the VM has stopped, a server has failed or ctx ends. It
// returns nil if the guest shut down, a [*domain.StopError] if the VM ended
// otherwise. Without a domain there is no good end but that of ctx; when the session
// is closed, it is [ErrSessionClosed].
func (s *Session) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.done, func() { cancel(s.ended()) }) //nolint:contextcheck // s.done is the servers', not the caller's
	defer stop()
	if s.vm != nil {
		return s.vm.Wait(ctx)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// ended is why the servers have: the failure of one, or Close.
func (s *Session) ended() error {
	if err := context.Cause(s.done); !errors.Is(err, context.Canceled) {
		return err
	}
	return ErrSessionClosed
}

// Close asks the VM, if there is one, to shut down, and destroys it when that
// takes longer than the Domain's ShutdownTimeout or ctx ends meanwhile. A ctx that
// has ended before, as that of the process usually has, leaves the guest its
// ShutdownTimeout. Then Close ends the servers and closes all sockets. The pod's
// network stays prepared, unless the Hook says RestoreAfter: then a VM that is not
// ours has [DefaultShutdownTimeout], or until ctx ends, to leave the tap, and the
// error wraps [ErrTapInUse] if it does not. Only the first call does something.
func (s *Session) Close(ctx context.Context) (err error) {
	s.closing.Do(func() { err = s.close(ctx) })
	return err
}

func (s *Session) close(ctx context.Context) error {
	var errs []error
	if s.vm != nil {
		if ctx.Err() != nil {
			ctx = context.WithoutCancel(ctx)
		}
		ctx, cancel := context.WithTimeout(ctx, s.hook.Domain.ShutdownTimeout)
		defer cancel()
		errs = append(errs, s.vm.Shutdown(ctx), s.vm.Close()) //nolint:contextcheck // Close takes none
	}
	s.cancel()
	errs = append(errs, s.running.Wait())
	errs = append(errs, s.closeSockets()) // no sooner: a server would take it for a failure
	if s.restore {
		if ctx.Err() != nil {
			ctx = context.WithoutCancel(ctx)
		}
		errs = append(errs, s.pod.do(func() error { return s.hook.restoreAfter(ctx, s.plans, DefaultShutdownTimeout) }))
	}
	s.pod.close()
	return errors.Join(errs...)
}

func (s *Session) closeSockets() error {
	var errs []error
	for _, on := range s.servers {
		errs = append(errs, on.close())
	}
	if s.watch != nil {
		s.watch.close()
	}
	if s.control != nil {
		s.control.Close()
	}
	if s.keeper != nil {
		s.keeper.close()
	}
	s.serving.Close()
	if s.guards != nil {
		errs = append(errs, s.guards.Close())
	}
	return errors.Join(errs...)
}

// Status is what only the session knows: how far it is, and the leases.
func (s *Session) Status() control.Status {
	differences, _ := s.watch.differences()
	isReady := s.isReady.Load()
	status := control.Status{
		PID: os.Getpid(), Version: s.hook.Version, Since: s.since, Ready: isReady && len(differences) == 0 && s.done.Err() == nil,
		PrepareSeconds: s.prepared.Sub(s.since).Seconds(), RecordError: s.keeper.recordError(),
	}
	if isReady {
		status.StartSeconds = s.started.Sub(s.since).Seconds()
	}
	for _, on := range s.servers {
		i := control.Interface{Name: on.plan.Interface.Name, Omitted: on.omitted}
		for _, d := range differences {
			if d.Interface == i.Name {
				i.Differences = append(i.Differences, d)
			}
		}
		if err := s.watch.pod.Unwatched(); err != nil {
			i.Unwatched = err.Error()
		}
		i.LeaseUnknown = on.unheard && on.main().Status().State != lease.Bound
		if on.lease != nil {
			lease := on.lease.Status()
			i.Lease = &lease
		}
		if on.lease6 != nil {
			lease := on.lease6.Status()
			i.Lease6 = &lease
		}
		if on.router != nil {
			router := on.router.Status()
			i.Router = &router
		}
		status.Interfaces = append(status.Interfaces, i)
	}
	if isReady && s.vm != nil { // before that start may be about to set it
		status.Domain = s.vm.Name()
	}
	return status
}

// waitFor blocks until the condition holds or ctx ends.
func (s *Session) waitFor(ctx context.Context, condition string) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.watch.waitUntilPlanned(ctx); err != nil || condition == control.ForNetwork {
		return err
	}
	for _, on := range s.servers {
		if err := on.waitForLease(ctx); err != nil {
			return err
		}
	}
	return nil
}
