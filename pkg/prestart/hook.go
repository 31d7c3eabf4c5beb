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
//	// The VM's NIC goes on session.Networks()[0].Tap.
package prestart

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Hook says how a pod's network is handed to its VM. The zero value is good for
// the usual pod, from within it.
type Hook struct {
	// Netns is the path of the pod's network namespace; empty: the calling
	// thread's.
	Netns string
	// StateDir is where records and the control socket are; empty:
	// [prepare.DefaultStateDir], or a directory of the namespace's own below it if
	// Netns is named. Where another namespace has its records, which may still live,
	// it is a directory below it, too.
	StateDir string
	// Interfaces and ResolvConf are as in [discover.Options].
	Interfaces []string
	ResolvConf string
	// Timeout is how long to wait for the CNI, or for another process that
	// is at work on the pod; 0: as long as the context lasts.
	Timeout time.Duration
	// Network says how the interfaces are rewired. Its MAC and names are for
	// a single interface.
	Network prepare.Options
	// Lease is what the VM is told besides.
	Lease LeaseSettings
	// Model is the emulated NIC in the domain and in OutputDir; empty: virtio.
	Model string
	// PerInterface are the options, by its name, of an interface that has not the
	// three above. A name that is none of the VM's interfaces is refused.
	PerInterface map[string]InterfaceOptions
	// OutputDir is where Prepare and Run leave the NICs for whoever starts the
	// VM; empty: nowhere. See [NICsFile].
	OutputDir string
	// SkipCheck leaves out the proof, in Run, that a guest gets an answer.
	SkipCheck bool
	// Domain is the libvirt domain that Run starts; nil: someone else's task.
	Domain *Domain
	// Version is shown in the status.
	Version string
	// Log gets what is done and why; nil is silent.
	Log *slog.Logger
}

// Discover reads what the CNI gave the pod; for interfaces that are prepared
// already, what it had given. It changes nothing and waits for the CNI until
// ctx ends.
func (h Hook) Discover(ctx context.Context) (pod discover.Pod, err error) {
	if err := h.Validate(); err != nil {
		return pod, err
	}
	if h, err = h.located(); err != nil {
		return pod, err
	}
	err = in(h.Netns, func() error {
		pod, err = h.look(ctx)
		return err
	})
	return pod, err
}

// look is Discover in the current network namespace.
func (h Hook) look(ctx context.Context) (discover.Pod, error) {
	ctx, cancel := h.waiting(ctx)
	defer cancel()
	recorded, err := prepare.ReadPlans(h.Log, h.StateDir)
	if err != nil {
		return discover.Pod{}, err
	}
	return h.discover(ctx, recorded)
}

// waiting bounds what is waited for.
func (h Hook) waiting(ctx context.Context) (context.Context, context.CancelFunc) {
	if h.Timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, h.Timeout, timeoutError(h.Timeout))
}

func (h Hook) discover(ctx context.Context, recorded []prepare.Plan) (discover.Pod, error) {
	o := discover.Options{Interfaces: h.Interfaces, ResolvConf: h.ResolvConf, Log: h.Log}
	for _, p := range recorded {
		o.Recorded = append(o.Recorded, p.Interface)
	}
	pod, err := discover.ReadPod(ctx, o)
	if err == nil {
		err = h.noPlaceholder(pod, recorded)
	}
	return pod, err
}

// Plan says what Prepare would do, or why it can't. It changes nothing.
func (h Hook) Plan(ctx context.Context) (plans []prepare.Plan, err error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if h, err = h.located(); err != nil {
		return plans, err
	}
	err = in(h.Netns, func() (err error) {
		if plans, err = h.plansOf(ctx); err != nil {
			return err
		}
		return prepare.CheckSupport(plans...)
	})
	if err != nil {
		return nil, err
	}
	return plans, nil
}

// plansOf says what Prepare would do, in the current network namespace.
func (h Hook) plansOf(ctx context.Context) ([]prepare.Plan, error) {
	pod, err := h.look(ctx)
	if err != nil {
		return nil, err
	}
	return h.plans(pod)
}

func (h Hook) plans(pod discover.Pod) ([]prepare.Plan, error) {
	var names []string
	for _, i := range pod.Interfaces {
		names = append(names, i.Name)
	}
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
	_, err := h.Lease.hasDefaultRoute(plans)
	return plans, err
}

// Prepare discovers the pod and rewires it for its VM. Done already, it
// changes nothing.
func (h Hook) Prepare(ctx context.Context) (networks []prepare.Network, err error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if h, err = h.located(); err != nil {
		return networks, err
	}
	err = in(h.Netns, func() error {
		p, err := h.prepare(ctx)
		if err != nil {
			return err
		}
		networks = networksOf(p.plans)
		return h.handOver(p.plans)
	})
	if err != nil {
		return nil, err
	}
	return networks, nil
}

func networksOf(plans []prepare.Plan) []prepare.Network {
	networks := make([]prepare.Network, len(plans))
	for i, p := range plans {
		networks[i] = p.Network()
	}
	return networks
}

// preparation is a pod that is prepared.
type preparation struct {
	pod   discover.Pod
	plans []prepare.Plan
	fresh bool   // it was not before
	dir   string // of its state
	xml   []byte // of the domain, with the NICs; nil if there is none
}

// prepare acts in the current network namespace. What can be known to be wrong
// is found out before the first change.
func (h Hook) prepare(ctx context.Context) (preparation, error) {
	waiting, cancel := h.waiting(ctx)
	defer cancel()
	store, err := prepare.OpenStore(waiting, h.StateDir)
	if err != nil {
		return preparation{}, err
	}
	defer store.Close()
	h.StateDir = store.Dir()
	recorded, err := store.Plans(h.Log)
	if err != nil {
		return preparation{}, err
	}
	p := preparation{fresh: len(recorded) == 0, dir: store.Dir()}
	if p.fresh {
		if err := forget(store); err != nil {
			return preparation{}, err
		}
	}
	if p.pod, err = h.discover(waiting, recorded); err != nil {
		return preparation{}, err
	}
	if p.plans, err = h.plans(p.pod); err != nil {
		return preparation{}, err
	}
	if h.Domain != nil {
		if p.xml, err = h.attach(h.Domain.XML, p.plans); err != nil {
			return preparation{}, err
		}
	}
	if err := h.canHandOver(); err != nil {
		return preparation{}, err
	}
	return p, prepare.Apply(ctx, h.Log, store, p.plans...)
}

// Restore puts the interfaces, all that are prepared if none are named, back as
// the CNI left them. It returns their names.
func (h Hook) Restore(ctx context.Context) (restored []string, err error) {
	if h, err = h.located(); err != nil {
		return restored, err
	}
	err = in(h.Netns, func() (err error) {
		restored, err = h.restore(ctx)
		return err
	})
	return restored, err
}

// restore acts in the current network namespace.
func (h Hook) restore(ctx context.Context) (restored []string, err error) {
	store, err := prepare.OpenStore(ctx, h.StateDir)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	recorded, err := store.Plans(h.Log)
	if err != nil {
		return nil, err
	}
	for _, p := range recorded {
		if name := p.Interface.Name; len(h.Interfaces) == 0 || slices.Contains(h.Interfaces, name) {
			restored = append(restored, name)
		}
	}
	if err := prepare.Restore(ctx, h.Log, store, h.Interfaces...); err != nil {
		return nil, err
	}
	return restored, forget(store)
}

// Attach returns the domain's XML with the pod's NICs in it, as [domain.Attach]
// puts them in: those of the prepared interfaces, or what they will be once they
// are prepared with the same options. It changes nothing else. Other NICs of the
// domain stay; the log warns of each that will not work in the pod, which
// [domain.Foreign] tells as well.
func (h Hook) Attach(ctx context.Context, xml []byte) (out []byte, err error) {
	if err := h.Validate(); err != nil {
		return nil, err
	}
	if h, err = h.located(); err != nil {
		return out, err
	}
	err = in(h.Netns, func() error {
		plans, err := h.preparedOrPlanned(ctx)
		if err != nil {
			return err
		}
		out, err = h.attach(xml, plans)
		return err
	})
	return out, err
}
