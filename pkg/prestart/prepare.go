package prestart

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Prepare discovers the pod and rewires it for its VM. Done already, it
// changes nothing.
func (h Hook) Prepare(ctx context.Context) ([]Interface, error) {
	h.NoIdentity = true // who serves tells the VM, and then looks through the node's processes for one of the pod
	return inPod(h, func(h Hook) ([]Interface, error) {
		p, err := h.prepare(ctx)
		if err != nil {
			return nil, err
		}
		interfaces := together(each(p.plans, NewInterface))
		if err := p.hook.handOver(interfaces, each(p.plans, p.hook.domainNICOf)); err != nil {
			return nil, errors.Join(err, h.withdraw(ctx, p))
		}
		return interfaces, nil
	})
}

// preparation is a pod that is prepared.
type preparation struct {
	hook    Hook // as it was done
	pod     discover.Pod
	plans   []prepare.Plan    // the primary interface first, as it is recorded
	plugged []string          // the interfaces that were plugged into an earlier session
	fresh   []string          // the interfaces that were not prepared before
	files   map[string][]byte // what was in the output directory before
	xml     []byte            // of the domain, with the NICs; nil if there is none

	recorded []prepare.Plan // all that the pod has a record of then, also of other interfaces
}

// tellAfter is how long another process may have the pod before it is said.
const tellAfter = 3 * time.Second

// openStore waits until no other process is at work on the pod: one that waits for the
// CNI may be for long.
func (h Hook) openStore(ctx context.Context) (*prepare.Store, error) {
	tell := time.AfterFunc(tellAfter, func() {
		h.Log.Info("waiting for another process, which is at work on this pod", "stateDir", h.StateDir)
	})
	defer tell.Stop()
	return prepare.OpenStore(ctx, h.StateDir)
}

// prepare acts in the current network namespace. What can be known to be wrong
// is found out before the first change.
func (h Hook) prepare(ctx context.Context) (preparation, error) {
	if err := h.checkMachine(); err != nil {
		return preparation{}, err
	}
	waiting, cancel := h.waiting(ctx)
	defer cancel()
	store, err := h.openStore(waiting)
	if err != nil {
		return preparation{}, err
	}
	defer store.Close()
	h.StateDir = store.Dir()
	recorded, err := store.Plans(h.Log)
	if err == nil && h.resume {
		recorded, err = h.withoutGone(ctx, store, recorded)
	}
	if err != nil {
		return preparation{}, err
	}
	if err := removeMemories(store); err != nil {
		return preparation{}, err
	}
	var p preparation
	if h, p.plugged, err = h.withPlugged(recorded); err != nil {
		return preparation{}, err
	}
	p.hook = h
	if p.pod, err = h.discoverBeside(waiting, recorded); err != nil {
		return preparation{}, err
	}
	if p.plans, err = h.plans(p.pod); err != nil {
		return preparation{}, err
	}
	p.recorded = recorded
	was := namesOf(nicsOf(recorded))
	slices.SortStableFunc(p.plans, func(a, b prepare.Plan) int { // those that were prepared before come first
		return cmp.Compare(uint(slices.Index(was, a.Interface.Name)), uint(slices.Index(was, b.Interface.Name)))
	})
	for _, plan := range p.plans {
		if n := slices.Index(was, plan.Interface.Name); n >= 0 {
			p.recorded[n] = plan
		} else {
			p.recorded = append(p.recorded, plan)
		}
		for _, w := range plan.Warnings(h.RestoreAfter) {
			h.Log.Warn("this will fail later", "interface", plan.Interface.Name, "what", w)
		}
	}
	if h.Domain != nil {
		if p.xml, err = h.attach(h.Domain.XML, p.plans); err != nil {
			return preparation{}, err
		}
	}
	if p.files, err = h.canHandOver(); err != nil {
		return preparation{}, err
	}
	toApply := p.plans
	if h.resume {
		if toApply, err = h.withoutLost(ctx, p.plans, recorded); err != nil {
			return preparation{}, err
		}
	}
	primary := p.plans[0].Interface.Name
	if err := h.remember(primary, h.plugged); err != nil { // before the first change, as the record
		return preparation{}, err
	}
	applied, fresh, err := prepare.Apply(ctx, h.Log, store, toApply...)
	if err != nil {
		if h.plugged != nil {
			err = errors.Join(err, h.forget(primary))
		}
		return preparation{}, err
	}
	p.fresh = fresh
	for _, plan := range applied {
		replace(p.plans, plan)
		replace(p.recorded, plan)
	}
	if len(h.Interfaces) > 0 && h.Interfaces[0] != primary {
		h.Log.Warn("the interface that was prepared first stays the primary one", "primary", primary, "named", h.Interfaces[0])
	}
	return p, nil
}

// replace puts a plan in the place of that of the same interface.
func replace(plans []prepare.Plan, plan prepare.Plan) {
	for i, p := range plans {
		if p.Interface.Name == plan.Interface.Name {
			plans[i] = plan
		}
	}
}

// withoutLost are the plans without those of recorded interfaces that are gone from the pod
// while a VM has their taps: nothing can be prepared of them, and the VM's other NICs are
// to be served all the same.
func (h Hook) withoutLost(ctx context.Context, plans, recorded []prepare.Plan) (left []prepare.Plan, err error) {
	now, err := discover.ReadInterfaces()
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		is := func(i discover.Interface) bool { return i.Index == p.Interface.Index }
		isRecorded := slices.ContainsFunc(recorded, func(r prepare.Plan) bool { return is(r.Interface) })
		if !isRecorded || slices.ContainsFunc(now, is) || h.unused(ctx, p.NIC()) == nil {
			left = append(left, p)
			continue
		}
		if err := prepare.CheckApply(h.StateDir, p); err != nil { // for other options
			return nil, err
		}
		h.Log.Error("a pod interface is gone, and the VM has no network by its NIC: the others are served", "interface", p.Interface.Name, "remedy", "recreate the pod")
	}
	return left, nil
}

// withdraw puts back what prepare has prepared, and not what was before.
func (h Hook) withdraw(ctx context.Context, p preparation) error {
	err := h.takeBack(p.files)
	if h.StateDir, h.Interfaces, h.Force = p.hook.StateDir, p.fresh, true; len(p.fresh) == 0 {
		return err
	}
	restoring, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime)
	defer cancel()
	_, _, restoreErr := h.restore(restoring)
	return errors.Join(err, restoreErr)
}
