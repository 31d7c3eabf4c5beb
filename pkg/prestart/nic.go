package prestart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// server serves a NIC by one protocol.
type server interface {
	Serve(ctx context.Context) error
	Close() error
}

// nic is one of the VM's NICs while it is served. It is opened, started and closed
// whatever others do.
type nic struct {
	guest.NIC
	plan    atomic.Pointer[prepare.Plan] // nil: it is served without a record
	hook    Hook
	plugged bool              // into a session that was there
	options *InterfaceOptions // with which Plug did; nil: it did not

	lease   lease.Server         // DHCPv4; nil: there is nothing to lease
	lease6  lease.Server         // DHCPv6; nil: likewise
	router  *ra.Server           // nil: there is no IPv6
	servers []server             // all of them
	watch   *watch               // nil: there is no plan to compare with
	guard   *prepare.GuardReader // nil: there are no tables
	groups  *packet.Groups       // nil: the VM's multicast groups get through as it is
	// repairer keeps the nftables tables whole; nil: nobody does.
	repairer *repairer
	// omitted is what the VM does not get of what the pod has.
	omitted []discover.Omission
	// leaseUnknown is whether a VM had the tap when the servers were opened, of whose
	// lease nothing was kept.
	leaseUnknown bool

	running sync.WaitGroup
	done    context.Context // ends when it is not served any more
	cancel  context.CancelCauseFunc
	closing sync.Once
}

// nicsFor are NICs to be opened for plans, of which those of some interfaces are plugged.
func (h Hook) nicsFor(plans []prepare.Plan, plugged ...string) []*nic {
	return each(plans, func(p prepare.Plan) *nic {
		n := &nic{NIC: p.NIC(), hook: h}
		if name := p.Interface.Name; slices.Contains(plugged, name) {
			n.plugged, n.options = true, new(h.PerInterface[name])
		}
		n.plan.Store(&p)
		return n
	})
}

// canServe reports why no socket can be opened, in the current network namespace,
// on a tap that is yet to be made. A raw socket needs the capability that packet
// sockets do (packet(7), raw(7)), and is closed at once: those wait for all
// processors (packet_release, net/packet/af_packet.c).
func canServe() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return rawAdvice(fmt.Errorf("open raw socket: %w", err))
	}
	return unix.Close(fd)
}

// rawAdvice says what is missing where a packet socket is refused.
func rawAdvice(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: this needs the capability NET_RAW (securityContext.capabilities.add: [NET_RAW])", err)
	}
	return err
}

// open opens what serves and watches the NIC, in the current network namespace.
// changed is called when what differs has changed, portsChanged when who has which ports
// has. On error nothing is open.
func (n *nic) open(pod discover.Pod, d defaultRoutes, changed, portsChanged func()) (err error) {
	defer func() {
		if err != nil {
			if errors.Is(err, unix.ENODEV) { // of the tap
				err = fmt.Errorf("%w: %w", err, n.noTap())
			}
			err = errors.Join(&ServeError{n.Interface, rawAdvice(err)}, n.close())
		}
	}()
	l := n.hook.leaseOf(n.Interface).leases(n.NIC, pod, d)
	if err := n.openServers(l); err != nil {
		return err
	}
	n.omitted = append(n.omitted, l.omitted...)
	for _, o := range withoutNICs(n.omitted, interfacesOf(pod.Interfaces)) {
		n.hook.Log.Warn("the VM does not get all that the pod has", "interface", n.Interface, "what", o.What, "why", o.Why)
	}
	if len(n.servers) == 0 {
		n.hook.Log.Info("the pod has no address for the VM, which joins the network like any other host", "interface", n.Interface)
	}
	plan := n.plan.Load()
	if plan == nil {
		return nil
	}
	if plan.HasTables() {
		if n.guard, err = prepare.OpenGuardReader(); err != nil {
			return err
		}
	}
	if plan.FiltersGroups() {
		// Of an interface that is gone the watch tells: what else the VM is served stays.
		if n.groups, err = packet.OpenGroups(n.Interface); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	n.watch, err = n.openWatch(changed, portsChanged)
	return err
}

// openServers opens a server for each of the leases.
func (n *nic) openServers(l leases) error {
	log := n.hook.Log.With("interface", n.Interface)
	if l.ipv4 != nil {
		server, err := dhcp.NewServer(n.Tap, *l.ipv4, log)
		if err != nil {
			return err
		}
		n.lease, n.servers = server, append(n.servers, server)
	}
	if l.ipv6 != nil {
		server, err := dhcp6.NewServer(n.Tap, *l.ipv6, log)
		if err != nil {
			return err
		}
		n.lease6, n.servers = server, append(n.servers, server)
		if n.router, err = ra.NewServer(n.Tap, n.MAC, *l.advertisement, log); err != nil {
			return err
		}
		n.servers = append(n.servers, n.router)
	}
	for _, m := range n.memories() {
		if unknown := m.resume(); m.server == n.main() {
			n.leaseUnknown = unknown
		}
	}
	return nil
}

// start sets going what open has opened, until close or a server's failure, which
// ended is told of.
func (n *nic) start(ctx context.Context, ended func(error)) {
	ctx, n.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	n.done = ctx
	// Of their last answers the servers tell when they end.
	served, end := context.WithCancel(context.WithoutCancel(ctx))
	for _, m := range n.memories() {
		events := m.server.Events(served)
		n.running.Go(func() { m.follow(events) })
	}
	var serving sync.WaitGroup
	for _, server := range n.servers {
		serving.Go(func() {
			if err := server.Serve(ctx); err != nil {
				n.cancel(err)
			}
		})
	}
	n.running.Go(func() {
		serving.Wait()
		end()
	})
	if n.watch != nil {
		n.running.Go(func() { n.watch.follow(ctx) })
	}
	context.AfterFunc(ctx, func() {
		if err := n.failure(); err != nil {
			n.hook.Log.Error("a NIC is not served any more", "interface", n.Interface, "error", err)
			ended(err)
		}
	})
}

// errClosed is why a NIC is not served any more that was closed.
var errClosed = errors.New("the NIC is not served any more")

// failure is why the NIC is not served any more, though it was not closed; nil: it is.
func (n *nic) failure() error {
	err := context.Cause(n.done)
	if err == nil || errors.Is(err, errClosed) {
		return nil
	}
	if errors.Is(err, lease.ErrGone) { // which is that of the other servers, too
		err = fmt.Errorf("%w: %w", err, n.noTap())
	}
	return &ServeError{n.Interface, err}
}

// noTap says what to do where the tap is deleted.
func (n *nic) noTap() error {
	if n.hook.Remedy != "" {
		return errors.New(n.hook.Remedy)
	}
	return tun.ErrMissing
}

// close ends what open and start have begun. What was seen last can still be asked
// for.
func (n *nic) close() error {
	var errs []error
	n.closing.Do(func() {
		if n.cancel != nil {
			n.cancel(errClosed)
			n.running.Wait()
		}
		for _, server := range n.servers { // no sooner: it would take it for a failure
			errs = append(errs, server.Close())
		}
		if n.watch != nil {
			n.watch.close()
		}
		if n.guard != nil {
			errs = append(errs, n.guard.Close())
		}
		if n.groups != nil {
			errs = append(errs, n.groups.Close())
		}
	})
	return errors.Join(errs...)
}

// main is the server whose lease a guest has if it has its addresses: the IPv4 one if
// there is one, since not every guest asks for an IPv6 address. Nil: there is none.
func (n *nic) main() lease.Server { return cmp.Or(n.lease, n.lease6) }

// waitForLease blocks until a guest that is there has its address.
func (n *nic) waitForLease(ctx context.Context) error {
	server := n.main()
	if server == nil {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.done, func() { cancel(cmp.Or(n.failure(), errClosed)) })() //nolint:contextcheck // n.done is the NIC's, not the caller's
	_, err := server.Wait(ctx, lease.Status.IsHeld)
	if n.done.Err() != nil { // whatever is known of the lease, and whichever end was told first
		return cmp.Or(n.failure(), errClosed)
	}
	return err
}

// closedWithin is within what time the kernel tells that a tap was closed: it says so once
// a second, and the machine may be busy.
const closedWithin = 2 * time.Second

// untilClosed waits until the server knows that a check has closed the tap. Who waits for a
// lease that is kept would take the check for a guest; where none is kept nothing is waited for.
func (n *nic) untilClosed(ctx context.Context) {
	server := n.main()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closedWithin)
	defer cancel()
	_, _ = server.Wait(ctx, func(st lease.Status) bool { return !st.IsHeld() }) // an error: a VM has opened it since
}

// differences are what is not as planned.
func (n *nic) differences() (found []prepare.Difference) {
	if n.watch != nil {
		found, _ = n.watch.look(false) // its follow tells of an error
	}
	return found
}

// isReady tells whether the guest's network is served, and as planned.
func (n *nic) isReady() bool { return n.failure() == nil && len(n.differences()) == 0 }

func (n *nic) status() control.Served {
	s := control.Served{
		Name: n.Interface, Guest: new(n.Clone()), Model: n.hook.modelOf(n.Interface), Apart: n.hook.PodSocket || n.plan.Load() == nil, Differences: n.differences(), Unwatched: n.unwatched(), Omitted: slices.Clone(n.omitted), Error: textOf(n.failure()),
	}
	if n.lease != nil {
		s.Lease = new(n.lease.Status())
	}
	if n.lease6 != nil {
		s.Lease6 = new(n.lease6.Status())
	}
	if n.router != nil {
		s.Router = new(n.router.Status())
	}
	s.LeaseUnknown = n.leaseUnknown && n.main().Status().State != lease.Bound
	return s
}

// unwatched says of what a change would not be noticed.
func (n *nic) unwatched() string {
	if n.watch == nil {
		return "it is served without a record, so only a deleted tap is noticed"
	}
	return textOf(n.watch.pod.Unwatched())
}
