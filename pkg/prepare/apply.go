package prepare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Apply makes the plans so, all of them or none, and returns what is applied now, in their
// order, and the names of the interfaces that were not prepared before, all of it. Plans are
// recorded in the store first, and marked there when the last change is done. Where a plan
// is applied already, or was in part when a process was killed, only what is missing is
// done; one of other options than the recorded one is refused. Of the same options the
// recorded one stays, which another version of this program may have made otherwise.
//
// On error, and if ctx ends, the namespace is as before, but for two things. An
// interface that an earlier apply or restore left half done is as the CNI left
// it. A port guard that was made whole on an interface that was prepared stays,
// so that its VM is never without. A nil log is silent.
func Apply(ctx context.Context, log *slog.Logger, store *Store, plans ...Plan) (applied []Plan, fresh []string, err error) {
	log = cmp.Or(log, silent)
	if err := compatible(plans); err != nil {
		return nil, nil, err
	}
	before, err := engine.ReadState(sysctlsOf(plans))
	if err != nil {
		return nil, nil, err
	}
	recorded, err := store.load(log, before)
	if err != nil {
		return nil, nil, err
	}
	records, err := recordsFor(store.dir, before, recorded, plans)
	if err != nil {
		return nil, nil, err
	}
	ops, err := applyOps(before, plansOf(records))
	if err != nil {
		return nil, nil, err
	}
	partial := slices.DeleteFunc(slices.Clone(records), func(r record) bool { return r.whole(before) })
	for _, r := range partial {
		fresh = append(fresh, r.name())
	}
	if len(before.Stuck) > 0 {
		log.Warn("can't turn off sysctls: the pod's iptables rules may see the VM's frames", "sysctls", before.Stuck)
	}
	for _, p := range plans {
		engine.WarnUnfiltered(log, before, p.NIC())
	}
	if len(ops) == 0 {
		log.Debug("the network is prepared already")
		if err := store.mark(records, true); err != nil { // an older program's, or one of a process that was killed just before it
			log.Warn("can't mark the record as complete: if a repair fails, the preparation may be undone as a whole", "error", err)
		}
		return plansOf(records), fresh, nil
	}
	k, err := engine.Open(log)
	if err != nil {
		return nil, nil, err
	}
	defer k.Close()
	if err := k.Supported(ops, false); err != nil {
		return nil, nil, fmt.Errorf("prepare: %w", err)
	}
	if err := store.makeRoom(log, records); err != nil {
		return nil, nil, err
	}
	if err := store.mark(partial, false); err != nil {
		return nil, nil, errors.Join(err, store.forget(recorded, records))
	}
	older := withOtherPorts(recorded, records)
	err = store.saveAll(records, older)
	if err == nil {
		err = k.Execute(ctx, ops)
	}
	if err == nil {
		if err = store.mark(records, true); err != nil {
			err = errors.Join(err, k.Undo(ops))
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, store.saveAll(older, older), withdraw(context.WithoutCancel(ctx), log, k, store, recorded, partial))
	}
	for _, p := range plansOf(records) {
		n := p.NIC()
		log.Info("prepared", "interface", n.Interface, "datapath", p.Datapath, "tap", n.Tap, "mac", n.MAC, "addresses", n.Addresses(), "guard", n.Guard)
	}
	return plansOf(records), fresh, nil
}

// withOtherPorts are the recorded ones of interfaces whose plans share other ports.
func withOtherPorts(recorded, records []record) (out []record) {
	for _, r := range recorded {
		if n := indexOf(records, r.name()); n >= 0 && !samePorts(r.Plan.wired().Options(), records[n].Plan.wired().Options()) {
			out = append(out, r)
		}
	}
	return out
}

// applyOps are everything that is still to do for the plans.
func applyOps(s *engine.State, plans []Plan) ([]engine.Op, error) {
	var all engine.Steps
	var first []engine.Op
	off := map[string]bool{}
	for _, p := range plans {
		st, err := p.wired().Apply(s)
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", p.Interface.Name, err)
		}
		all.Append(st)
		for _, name := range p.sysctls() {
			if value, ok := s.Sysctls[name]; ok && value != "0" && !off[name] {
				off[name] = true
				first = append(first, engine.SetSysctl{Name: name, From: value, To: "0"})
			}
		}
	}
	return append(first, all.Ops()...), nil
}

// recordsFor are the records in dir that go with the plans. One of an interface that is
// prepared is the one that there is.
func recordsFor(dir *statedir.Dir, s *engine.State, recorded []record, plans []Plan) ([]record, error) {
	were, order := s.Sysctls, 0
	for _, r := range recorded {
		if len(r.Plan.sysctls()) > 0 {
			were = r.Sysctls // they are the namespace's, and turned off already
		}
		order = max(order, r.Order+1)
	}
	var records []record
	for _, p := range plans {
		name := p.Interface.Name
		r := record{Version: recordVersion, Namespace: dir.Namespace, Sysctls: were, Applied: new(bool), Plan: p}
		switch n := indexOf(recorded, name); {
		case n < 0:
			if err := cmp.Or(p.unprepared(s, dir.Path), p.upToDate(s)); err != nil {
				return nil, fmt.Errorf("prepare %s: %w", name, err)
			}
			r.Order = order
			order++
		case recorded[n].Plan.touched(s):
			if err := p.sameOptions(recorded[n].Plan); err != nil {
				return nil, err
			}
			r = recorded[n]
			if !samePorts(p.wired().Options(), r.Plan.wired().Options()) {
				r.Plan = p
			}
		default:
			if err := p.upToDate(s); err != nil {
				return nil, fmt.Errorf("prepare %s: %w", name, err)
			}
			r.Order = recorded[n].Order
		}
		if err := r.encodePlan(); err != nil {
			return nil, fmt.Errorf("encode plan of %s: %w", name, err)
		}
		records = append(records, r)
	}
	return records, nil
}

// touched reports whether the pod interface is not as the CNI left it.
func (p Plan) touched(s *engine.State) bool {
	st, _, err := p.wired().Restore(s)
	return err != nil || len(st.Ops()) > 0
}

// madeLinks are the links that are made, or renamed, for the VM.
func (p Plan) madeLinks() []Link {
	return slices.DeleteFunc(p.Links(), func(l Link) bool { return l.Name == p.Interface.Name })
}

// hasLinks tells whether some of these are there.
func (p Plan) hasLinks(s *engine.State) bool {
	return slices.ContainsFunc(p.madeLinks(), func(l Link) bool { return s.Link(l.Name) != nil })
}

// withdraw ends a failed apply, whose changes are undone: interfaces that were
// not prepared are put back, also from what an earlier, killed apply left half
// done. One that was whole, with perhaps a VM running, keeps what it had.
func withdraw(ctx context.Context, log *slog.Logger, k *engine.Kernel, store *Store, recorded, partial []record) error {
	if len(partial) == 0 {
		return nil
	}
	if err := putBack(ctx, log, k, partial, without(recorded, partial)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return store.forget(nil, partial)
}
