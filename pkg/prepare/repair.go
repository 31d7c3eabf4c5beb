package prepare

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// IsRepaired tells whether [RepairTables] would end the difference.
func (p Plan) IsRepaired(d Difference) bool {
	return p.IsTable(d) || d.Alias && d.Interface == p.Interface.Name
}

// IsTable tells whether the difference is of one of the plan's nftables tables, as the
// port guard is.
func (p Plan) IsTable(d Difference) bool {
	return d.Interface == p.Interface.Name && slices.ContainsFunc(p.purposes(), func(purpose string) bool { return purpose == d.What })
}

// purposes are what the plan's tables are for.
func (p Plan) purposes() (all []string) {
	for _, t := range p.wired().Tables() {
		all = append(all, t.Purpose)
	}
	return all
}

// RepairTables makes the nftables tables of a pod interface whole again, those that are
// not, in one transaction, and gives the tap what the pod's aliases take, and tells whether
// something was to do: another version of this program may have prepared it otherwise.
// Nothing else is changed, so a VM loses nothing by it. It waits until nobody else is at work in dir, or ctx ends. An
// interface that dir has no record of is not prepared any more, and gets none; the error
// wraps [fs.ErrNotExist]. Nor does one that is prepared in part: its prepare or restore was
// killed. A nil log is silent.
func RepairTables(ctx context.Context, log *slog.Logger, dir, name string) (repaired bool, err error) {
	log = cmp.Or(log, silent)
	d, err := statedir.OpenExisting(ctx, dir)
	if err != nil {
		return false, err
	}
	defer d.Close()
	store := &Store{d}
	now, err := engine.ReadState(nil)
	if err != nil {
		return false, err
	}
	recorded, err := store.load(log, now)
	n := indexOf(recorded, name)
	switch {
	case err != nil:
		return false, err
	case n < 0:
		return false, fmt.Errorf("record of %s in %s: %w: somebody has deleted it, or the interface is not prepared any more", name, store.Dir(), fs.ErrNotExist)
	case !recorded[n].whole(now):
		return false, fmt.Errorf("%s is prepared only in part: whoever did that was killed, and has to prepare or restore it again", name)
	}
	w := recorded[n].Plan.wiring
	ops := slices.Concat(engine.TableOps(now, w.Guest().Tap, w.Tables()...), aliasOps(now, w))
	if len(ops) == 0 {
		return false, nil
	}
	k, err := engine.Open(log)
	if err != nil {
		return false, err
	}
	defer k.Close()
	return true, k.Execute(ctx, ops)
}

// aliasOps are what is still to do for the aliases, if there is a tap that can have them: one
// that is down has no neighbors.
func aliasOps(s *engine.State, w engine.Wiring) (ops []engine.Op) {
	if tap := s.Link(w.Guest().Tap); tap == nil || !tap.Up() || tap.ARP() {
		return nil
	}
	st, err := w.Apply(s)
	if err != nil { // what is in the way differs from the plan, too
		return nil
	}
	for _, o := range st.Ops() {
		if _, ok := o.(engine.ForAlias); ok {
			ops = append(ops, o)
		}
	}
	return ops
}
