package prestart

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// recorded returns the plans that are recorded.
func (h Hook) recorded() ([]prepare.Plan, error) { return prepare.ReadPlans(h.Log, h.StateDir) }

// prepared returns the recorded plans of the named interfaces, or all.
func (h Hook) prepared() ([]prepare.Plan, error) {
	recorded, err := h.recorded()
	if err != nil {
		return nil, err
	}
	return h.named(recorded)
}

// named returns those of the named interfaces, or all.
func (h Hook) named(recorded []prepare.Plan) ([]prepare.Plan, error) {
	plans, missing := choose(recorded, h.Interfaces)
	switch {
	case len(missing) > 0:
		return nil, cmp.Or(h.unrecorded(missing[0]), fmt.Errorf("interface %s: %w", missing[0], h.notPrepared()))
	case len(plans) == 0:
		return nil, cmp.Or(h.unrecorded(""), h.notPrepared())
	}
	return plans, nil
}

func (h Hook) notPrepared() error {
	return fmt.Errorf("%w: %s", ErrNotPrepared, cmp.Or(h.Remedy, "prepare it first, with the same state directory"))
}

// choose returns the plans of the named interfaces, all if none are named, and the
// names of those that have none.
func choose(plans []prepare.Plan, names []string) (chosen []prepare.Plan, missing []string) {
	if len(names) == 0 {
		return plans, nil
	}
	for _, name := range names {
		if i := slices.IndexFunc(plans, func(p prepare.Plan) bool { return p.Interface.Name == name }); i >= 0 {
			chosen = append(chosen, plans[i])
		} else {
			missing = append(missing, name)
		}
	}
	return chosen, missing
}

// unrecorded returns a [*prepare.UnrecordedError] if the interface, or any if the name is
// empty, is prepared without a record that can be used.
func (h Hook) unrecorded(name string) error {
	found, err := prepare.ReadUnrecorded(h.StateDir)
	if err != nil {
		return err
	}
	for _, l := range found {
		if name == "" || l.Interface == name {
			l.Remedy = cmp.Or(h.Remedy, l.Remedy)
			return l
		}
	}
	return nil
}

// checkRead returns a [*prepare.UnrecordedError] if what was read of the pod is what
// prepare left in an interface's place: the record alone knows what that had.
func (h Hook) checkRead(pod discover.Pod, recorded []discover.Interface) error {
	for _, i := range pod.Interfaces {
		if slices.ContainsFunc(recorded, func(r discover.Interface) bool { return r.Name == i.Name }) {
			continue
		}
		if err := h.unrecorded(i.Name); err != nil {
			return err
		}
	}
	return nil
}
