// Package prestart is the hook that runs before a VM starts: it discovers what
// the CNI gave the pod, prepares the pod's network namespace, serves the VM's
// DHCP, proves the path, and can start the libvirt domain. What outlives the
// start is a Session.
//
// A launcher fills in a Hook and calls Run:
//
//	session, err := prestart.Hook{Netns: "/proc/42/ns/net", Log: log}.Run(ctx)
//	if err != nil { … }
//	defer session.Close(context.WithoutCancel(ctx)) // ctx has usually ended by then
//	args, err := domain.QEMUArgs(session.NICs()...) // or domain.Attach, into a domain's XML
//	err = session.WaitLease(ctx)                    // session.Events tells each step
//
// # Errors
//
// Those of setting values are found by [Hook.Validate] before anything is touched.
// Of the others a caller may tell apart, by [errors.As]:
//
//   - a pod that is not as wanted: [*discover.IncompleteError], [*discover.NotFoundError],
//     [*prepare.UnusableError], [*prepare.NameTakenError]; [*TimeoutError], which is
//     [context.DeadlineExceeded], if Hook.Timeout ended the wait for it;
//   - one that is prepared: [*prepare.OptionsError] with other options,
//     [*prepare.UnrecordedError] without a record; or not: [ErrNotPrepared];
//   - one that is served: [*ServedError]; or not: [control.ErrNobodyServes];
//   - one whose guest would get no network: [*CheckError]; a NIC that is not served
//     any more: [*ServeError]; a VM in the way of a restore: [check.ErrTapInUse];
//   - a domain: [*domain.ConnectError], [*domain.StopError], [domain.ErrDisconnected], [domain.ErrNoAnswer],
//     [domain.ErrNotReleased];
//   - what is plugged into a session: [ErrPlugged], [ErrNoHotplug].
//
// A context that ends is told as its cause.
package prestart

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Hook says how a pod's network is handed to its VM. The zero value is good for
// the usual pod, from within it. A session keeps the maps and slices of its Hook: change
// none of them before it is closed.
type Hook struct {
	// Netns is the path of the pod's network namespace; empty: the calling thread's
	// ([ErrMachine] if that is the machine's own),
	// with which a session stays, whatever goroutine calls its methods: lock the thread
	// that calls Run if others are elsewhere. Where that is not this process's own, hostname and DNS are those of
	// a process of the pod, that of /proc/PID/ns/net first. Without one the VM is
	// told of none, unless Lease or ResolvConf has them.
	Netns string
	// StateDir is where records and the control socket are; empty:
	// [prepare.DefaultStateDir], or a directory of the namespace's own below it if
	// Netns is named. Where another namespace has its records, which may still live,
	// it is a directory below it, too.
	StateDir string
	// Interfaces and ResolvConf are as in [discover.Options].
	Interfaces []string
	ResolvConf string
	// NoIdentity leaves out what a process of the pod would tell: the VM has the hostname
	// and the DNS of Lease alone. For who is not in the pod, and knows them already.
	NoIdentity bool
	// Timeout is how long to wait for the CNI, or for another process that
	// is at work on the pod; 0: as long as the context lasts.
	Timeout time.Duration
	// Network says how the interfaces are prepared. Its MAC and names are for
	// a single interface.
	Network prepare.Options
	// Lease is what the VM is told besides.
	Lease LeaseSettings
	// Model is the emulated NIC in the domain and in OutputDir; empty: virtio.
	Model string
	// PerInterface are the options, by its name, of an interface that has not the
	// three above. A name that is none of the VM's interfaces is refused, unless it can
	// be plugged in later, by Hotplug.
	PerInterface map[string]InterfaceOptions
	// OutputDir is where Prepare and Run leave the NICs for whoever starts the
	// VM; empty: nowhere. See [NICsFile].
	OutputDir string
	// Forwards are ports of the pod's loopback that lead to the VM, in Run and Serve, as
	// kubectl port-forward needs them where the VM has an address within the pod: see
	// [guest.Alias].
	Forwards []forward.Port
	// SkipCheck leaves out the proof, in Run, that a guest gets an answer.
	SkipCheck bool
	// Force has Restore put the pod back although a VM has the tap open, which
	// then has no network any more.
	Force bool
	// RestoreAfter has the end of a session put its interfaces back as the CNI left
	// them, once no VM has their taps open any more: see [Session.Close].
	RestoreAfter bool
	// Elevate is called before RestoreAfter changes the network, for a process that
	// lays down its privileges meanwhile; nil: nothing is to be done.
	Elevate func() error
	// PodSocket has the session answer processes of the pod (see [control.PodSocketName]) in place
	// of those that see the state directory, and leaves the records there to others. For
	// one process that serves many pods.
	PodSocket bool
	// Repair has the session make the nftables tables of its interfaces, as the port guard,
	// whole again when another program deletes or changes them; if that goes on, once a
	// minute. It needs NET_ADMIN, and the right to enter Netns, as long as it lasts.
	Repair bool
	// Remedy is what who serves interfaces that others prepare tells to do where one is to
	// be prepared again; empty: to prepare it again by this program.
	Remedy string
	// Failed is called, from a goroutine of its own, when a NIC that was added to the
	// session is not served any more; nil: nobody is told.
	Failed func(*ServeError)
	// Hotplug has a session of Run plug and unplug interfaces for who asks on the control
	// socket; nil: for nobody.
	Hotplug *Hotplug
	// Domain is the libvirt domain that Run starts; nil: someone else's task.
	Domain *Domain
	// Version is shown in the status.
	Version string
	// Log gets what is done and why; nil is silent. Its handler may ask the session, but not
	// change it: Plug, Unplug, Add, Remove and Close wait for who writes a line.
	Log *slog.Logger

	namespace statedir.Namespace // that of Netns, once it is located
	resume    bool               // take what was plugged into an earlier session, too
	plugged   *InterfaceOptions  // with what the only interface is plugged in; nil: it is not
}

// Discover reads what the CNI gave the pod; for interfaces that are prepared
// already, what it had given. It changes nothing and waits for the CNI until
// ctx ends or Timeout is over, and then returns a [*discover.IncompleteError].
func (h Hook) Discover(ctx context.Context) (discover.Pod, error) {
	return inPod(h, func(h Hook) (discover.Pod, error) {
		pod, recorded, err := h.read(ctx)
		if err != nil {
			return pod, err
		}
		return pod, h.tellOmitted(pod, recorded)
	})
}

// read reads the pod, and what is recorded of it, in the current network namespace.
func (h Hook) read(ctx context.Context) (pod discover.Pod, recorded []prepare.Plan, err error) {
	if recorded, err = prepare.ReadPlans(h.Log, h.StateDir); err != nil {
		return pod, nil, err
	}
	ctx, cancel := h.waiting(ctx)
	defer cancel()
	pod, err = h.discoverBeside(ctx, recorded)
	return pod, recorded, err
}

// waiting bounds what is waited for.
func (h Hook) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	if h.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, h.Timeout, &TimeoutError{After: h.Timeout})
}

// discoverBeside is discover beside interfaces that are prepared, whose taps are not
// the pod's, though they may have an alias as their address.
func (h Hook) discoverBeside(ctx context.Context, recorded []prepare.Plan) (discover.Pod, error) {
	pod, err := h.discover(ctx, recordedOf(recorded))
	taps := each(nicsOf(recorded), func(n guest.NIC) string { return n.Tap })
	for i, in := range pod.Interfaces {
		pod.Interfaces[i].Omitted = withoutNICs(in.Omitted, taps)
	}
	return pod, err
}

// discover reads the pod, but for the interfaces that are recorded.
func (h Hook) discover(ctx context.Context, recorded []discover.Interface) (discover.Pod, error) {
	pod, err := discover.ReadPod(ctx, discover.Options{
		Interfaces: h.Interfaces, Recorded: recorded, ResolvConf: h.ResolvConf, NoIdentity: h.NoIdentity, Process: processOf(h.Netns), Log: h.Log,
	})
	if err != nil {
		return pod, err
	}
	if !h.NoIdentity {
		h.warnOfUnknown(pod)
	}
	return pod, h.checkRead(pod, recorded)
}

// identity is what else the VM is told of the pod whose NICs these are.
func (h Hook) identity(ctx context.Context, nics []*nic) (discover.Pod, error) {
	if h.NoIdentity {
		return discover.Pod{}, nil
	}
	h.Interfaces = nil
	return h.discover(ctx, each(nics, func(n *nic) discover.Interface { return discover.Interface{Name: n.Interface} }))
}

// Plan says what Prepare would do, or why it can't. It changes nothing.
func (h Hook) Plan(ctx context.Context) ([]prepare.Plan, error) {
	return inPod(h, func(h Hook) ([]prepare.Plan, error) {
		plans, err := h.plansOf(ctx)
		if err == nil {
			err = prepare.CheckApply(h.StateDir, plans...)
		}
		if err == nil {
			err = prepare.CheckSupport(plans...)
		}
		return plans, err
	})
}

// plansOf says what Prepare would do, in the current network namespace.
func (h Hook) plansOf(ctx context.Context) ([]prepare.Plan, error) {
	if err := h.checkMachine(); err != nil {
		return nil, err
	}
	pod, recorded, err := h.read(ctx)
	if err != nil {
		return nil, err
	}
	if h, _, err = h.withPlugged(recorded); err != nil {
		return nil, err
	}
	return h.plans(pod)
}

func (h Hook) plans(pod discover.Pod) ([]prepare.Plan, error) {
	names := interfacesOf(pod.Interfaces)
	if err := errors.Join(h.checkNamed(names), h.checkShared(names)); err != nil {
		return nil, err
	}
	var plans []prepare.Plan
	for _, i := range pod.Interfaces {
		p, err := prepare.NewPlan(i, h.networkOf(i.Name))
		if err != nil {
			return nil, err
		}
		plans = append(plans, p)
	}
	if err := distinct(plans); err != nil {
		return nil, err
	}
	return plans, errors.Join(h.checkForwards(nicsOf(plans)), h.checkLeases(plans, pod))
}
