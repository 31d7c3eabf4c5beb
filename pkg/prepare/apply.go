package prepare

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Network is one prepared pod interface: what the VM's NIC plugs into.
type Network struct {
	Name      string         `json:"name"` // the pod interface's
	Datapath  string         `json:"datapath"`
	Uplink    string         `json:"uplink"`
	Bridge    string         `json:"bridge"`
	Tap       string         `json:"tap"`
	MAC       mac.Addr       `json:"mac"` // the VM's
	MTU       int            `json:"mtu"`
	Queues    int            `json:"queues"`
	Addresses []netip.Prefix `json:"addresses"`
	Guard     bool           `json:"guard"`
}

// Network returns what the plan amounts to once it is applied.
func (p Plan) Network() Network {
	return Network{
		Name: p.Interface.Name, Datapath: p.Datapath, Uplink: p.Bridge.Uplink, Bridge: p.Bridge.Name, Tap: p.Tap.Name,
		MAC: p.MAC, MTU: p.MTU, Queues: p.Tap.Queues, Addresses: p.Addresses(), Guard: p.Guard,
	}
}

// Apply makes the plans so, all of them or none. Plans are recorded in the store
// first, and marked there when the last change is done. Where a plan is applied
// already, or was in part when a process was killed, only what is missing is
// done; a plan that differs from the recorded one is refused.
//
// On error, and if ctx ends, the namespace is as before, but for two things. An
// interface that an earlier apply or restore left half done is as the CNI left
// it. A port guard that was made whole on an interface that was prepared stays,
// so that its VM is never without.
//
// What is applied is what the store has afterwards: beside other interfaces that
// are prepared, a plan is completed by what their records know. A nil log is
// silent.
func Apply(ctx context.Context, log *slog.Logger, store *Store, plans ...Plan) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	before, err := readState()
	if err != nil {
		return err
	}
	recorded, err := store.load(log, &before)
	if err != nil {
		return err
	}
	ops, records, err := planned(before, recorded, plans)
	if err != nil {
		return err
	}
	if len(before.stuck) > 0 {
		log.Warn("can't turn off sysctls: the pod's iptables rules may see the VM's frames", "sysctls", before.stuck)
	}
	for _, p := range plans {
		p.warnUnfiltered(log, before)
	}
	if len(ops) == 0 {
		log.Debug("the network is prepared already")
		if err := store.mark(records, true); err != nil { // an older program's, or one of a process that was killed just before it
			log.Warn("can't mark the network as prepared: if a repair fails, it may be taken for half done", "error", err)
		}
		return nil
	}
	k, err := newKernel(log)
	if err != nil {
		return err
	}
	defer k.conn.Close()
	if err := devicesSupported(k.conn, ops); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	if err := store.makeRoom(log, records); err != nil {
		return err
	}
	if err := store.mark(before.fresh(records), false); err != nil {
		return errors.Join(err, forget(store, recorded, records))
	}
	err = k.execute(ctx, ops)
	if err == nil {
		if err = store.mark(records, true); err != nil {
			err = errors.Join(err, k.undo(ops))
		}
	}
	if err != nil {
		return errors.Join(err, k.withdraw(context.WithoutCancel(ctx), store, recorded, before.fresh(records)))
	}
	for _, p := range plansOf(records) {
		log.Info("prepared", "interface", p.Interface.Name, "uplink", p.Bridge.Uplink, "bridge", p.Bridge.Name, "tap", p.Tap.Name,
			"mac", p.MAC, "addresses", p.Addresses(), "guard", p.Guard)
	}
	return nil
}

// planned returns everything that is to do, and the records that go with it.
func planned(s state, recorded []record, plans []Plan) ([]op, []record, error) {
	current, err := statedir.Current()
	if err != nil {
		return nil, nil, err
	}
	knobs, order := s.knobs, 0
	for _, r := range recorded {
		knobs = r.Knobs // they are the namespace's, and turned off already
		order = max(order, r.Order+1)
	}
	others := slices.DeleteFunc(plansOf(recorded), func(o Plan) bool {
		return slices.ContainsFunc(plans, func(p Plan) bool { return p.Interface.Name == o.Interface.Name })
	})
	var records []record
	for _, p := range plans {
		name := p.Interface.Name
		known := slices.DeleteFunc(plansOf(recorded), func(o Plan) bool { return o.Interface.Name == name })
		r := record{Version: recordVersion, Namespace: current, Knobs: knobs, Applied: new(bool)}
		n := slices.IndexFunc(recorded, func(r record) bool { return r.Plan.Interface.Name == name })
		switch {
		case n < 0:
			if err := p.namesFree(s); err != nil {
				return nil, nil, fmt.Errorf("prepare %s: %w", name, err)
			}
			r.Order, r.Plan = order, p.inherit(s, known)
			order++
		case recorded[n].Plan.touched(s):
			if d := differences(recorded[n].Plan, p); len(d) > 0 {
				return nil, nil, &OptionsError{Interface: name, Differences: d}
			}
			r = recorded[n]
		default:
			r.Order, r.Plan = recorded[n].Order, p.inherit(s, known)
		}
		records = append(records, r)
	}
	ops, err := applyOps(s, plansOf(records), others)
	if err != nil {
		return nil, nil, err
	}
	return append(knobOps(s), ops...), records, nil
}

// CheckApply finds out whether [Apply] would refuse the plans for what is there: a
// name that is taken, or an interface that dir, found by [statedir.Find], has
// recorded as prepared with other options. It changes nothing and needs no
// privileges.
func CheckApply(dir string, plans ...Plan) error {
	recorded, err := ReadPlans(nil, dir)
	if err != nil {
		return err
	}
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	var s state
	if s.links, err = conn.Links(); err != nil {
		return err
	}
	for _, p := range plans {
		name := p.Interface.Name
		n := slices.IndexFunc(recorded, func(r Plan) bool { return r.Interface.Name == name })
		if n < 0 {
			if err := p.namesFree(s); err != nil {
				return fmt.Errorf("prepare %s: %w", name, err)
			}
		} else if r := recorded[n]; s.named(r.Bridge.Name) != nil || s.named(r.Bridge.Uplink) != nil || s.named(r.Tap.Name) != nil {
			if d := differences(r, p); len(d) > 0 {
				return &OptionsError{Interface: name, Differences: d}
			}
		}
	}
	return nil
}

// touched reports whether the pod interface is not as the CNI left it.
func (p Plan) touched(s state) bool {
	st := p.restoreSteps(s)
	return len(st.ops()) > 0
}

// namesFree refuses to take over links that no record says are ours.
func (p Plan) namesFree(s state) error {
	uses := map[string]string{p.Tap.Name: "tap", p.Bridge.Name: "bridge", p.Bridge.Uplink: "uplink"}
	for _, name := range slices.Sorted(maps.Keys(uses)) {
		if l := s.named(name); l != nil && l.Name != name {
			return &NameTakenError{name, uses[name], fmt.Sprintf("as another name of %s: take that from it (ip link property del dev %s altname %s)", l.Name, l.Name, name)}
		} else if l != nil {
			return &NameTakenError{name, uses[name], fmt.Sprintf("by a link of kind %q that is not recorded in the state directory: "+
				"name the state directory that was used before, delete it (ip link delete %s)", l.Kind, name)}
		}
	}
	return nil
}

// withdraw ends a failed apply, whose changes are undone: interfaces that were
// not prepared are put back, also from what an earlier, killed apply left half
// done. One that was whole, with perhaps a VM running, keeps what it had.
func (k *kernel) withdraw(ctx context.Context, store *Store, recorded, partial []record) error {
	if len(partial) == 0 {
		return nil
	}
	staying := slices.DeleteFunc(slices.Clone(recorded), func(r record) bool { return hasRecord(partial, r) })
	if err := k.putBack(ctx, partial, staying); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return forget(store, nil, partial)
}

// forget removes the records that were not there before.
func forget(store *Store, recorded, records []record) error {
	var errs []error
	for _, r := range records {
		if !hasRecord(recorded, r) {
			errs = append(errs, store.remove(r.Plan.Interface.Name))
		}
	}
	return errors.Join(errs...)
}

// hasRecord reports whether one of the records is of the same interface as r.
func hasRecord(records []record, r record) bool {
	return slices.ContainsFunc(records, func(o record) bool { return o.Plan.Interface.Name == r.Plan.Interface.Name })
}

// Restore puts the named pod interfaces, or all that are recorded, back as the
// CNI left them; all of them or none. What is not prepared is nothing to do; what
// is prepared but not recorded is a [LostError]. A nil log is silent.
func Restore(ctx context.Context, log *slog.Logger, store *Store, names ...string) error {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	recorded, err := store.load(log, nil)
	if err == nil {
		err = store.sweep()
	}
	if err != nil {
		return err
	}
	records := slices.DeleteFunc(slices.Clone(recorded), func(r record) bool {
		return len(names) > 0 && !slices.Contains(names, r.Plan.Interface.Name)
	})
	if err := store.unrecorded(log, names, records); err != nil || len(records) == 0 {
		return err
	}
	k, err := newKernel(log)
	if err != nil {
		return err
	}
	defer k.conn.Close()
	staying := slices.DeleteFunc(slices.Clone(recorded), func(r record) bool { return hasRecord(records, r) })
	if err := store.mark(records, false); err != nil { // what is half put back is not whole
		log.Warn("can't mark the network as half put back: if this is killed, restore it again", "error", err)
	}
	if err := k.putBack(ctx, records, staying); err != nil {
		return errors.Join(fmt.Errorf("restore: %w", err), store.saveAll(records))
	}
	for _, r := range records {
		log.Info("restored", "interface", r.Plan.Interface.Name)
	}
	return forget(store, nil, records)
}

// putBack restores what the records say; the namespace's switches too if no
// other interface of the pod stays prepared.
func (k *kernel) putBack(ctx context.Context, records, staying []record) error {
	s, err := readState()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range plansOf(records) {
		errs = append(errs, p.restorable(s))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for _, p := range plansOf(records) {
		if p.uplink(s) == nil {
			k.log.Warn("the pod interface is gone: only what was made for the VM is removed", "interface", p.Interface.Name)
		}
		for _, l := range p.strangers(s) {
			k.log.Warn("left alone: a link that was not made for the VM has the name of one that was", "interface", p.Interface.Name, "link", l.Name, "is", describe(l))
		}
	}
	ops := restoreOps(s, plansOf(records), plansOf(staying))
	if len(staying) == 0 {
		ops = append(ops, knobRestoreOps(s, records[0].Knobs)...)
	}
	return k.execute(ctx, ops)
}

func newKernel(log *slog.Logger) (*kernel, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	return &kernel{conn: conn, log: log}, nil
}

// differences says in which fields, by their JSON names, two plans differ.
func differences(was, now Plan) []string {
	a, b := fields(was), fields(now)
	all := maps.Clone(a)
	maps.Copy(all, b)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if a[key] != b[key] {
			out = append(out, fmt.Sprintf("%s was %s, is now %s", key, cmp.Or(a[key], "none"), cmp.Or(b[key], "none")))
		}
	}
	return out
}

// fields returns a plan's options as JSON has them, by their paths. The interface
// is not among them: what the CNI gave does not change.
func fields(p Plan) map[string]string {
	all := map[string]string{}
	text, err := json.Marshal(p)
	if err == nil {
		err = flatten(all, "", text)
	}
	if err != nil {
		return map[string]string{"plan": err.Error()}
	}
	maps.DeleteFunc(all, func(path, _ string) bool { return strings.HasPrefix(path, "interface.") })
	return all
}

// flatten adds what is in a JSON object to all, by its path.
func flatten(all map[string]string, path string, text json.RawMessage) error {
	if text[0] != '{' {
		all[path] = string(text)
		return nil
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(text, &object); err != nil {
		return err
	}
	for key, value := range object {
		if err := flatten(all, strings.TrimPrefix(path+"."+key, "."), value); err != nil {
			return err
		}
	}
	return nil
}
