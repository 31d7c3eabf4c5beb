package prepare

import (
	"context"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// ApplyAll plans interfaces of the namespace, from their records if there are any,
// and applies them together.
func ApplyAll(ctx context.Context, dir string, o Options, names ...string) error {
	store, err := OpenStore(context.WithoutCancel(ctx), dir)
	if err != nil {
		return err
	}
	defer store.Close()
	plans, err := plansFor(store, o, names...)
	if err != nil {
		return err
	}
	_, _, err = Apply(ctx, nil, store, plans...)
	return err
}

// ApplyOne is ApplyAll of one interface, and returns its plan.
func ApplyOne(ctx context.Context, dir string, o Options, name string) (Plan, error) {
	if err := ApplyAll(ctx, dir, o, name); err != nil {
		return Plan{}, err
	}
	plans, err := ReadPlans(discard, dir)
	for _, p := range plans {
		if p.Interface.Name == name {
			return p, err
		}
	}
	return Plan{}, err
}

// RestoreAll restores interfaces; none named: all.
func RestoreAll(ctx context.Context, dir string, names ...string) error {
	store, err := OpenStore(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return Restore(ctx, nil, store, names...)
}

// plansFor plans interfaces, from their records if there are any.
func plansFor(store *Store, o Options, names ...string) (plans []Plan, err error) {
	recorded, err := store.Plans(discard)
	if err != nil {
		return nil, err
	}
	interfaces, err := discover.ReadInterfaces()
	if err != nil {
		return nil, err
	}
	for _, p := range recorded {
		interfaces = slices.Insert(interfaces, 0, p.Interface)
	}
	for _, name := range names {
		i := slices.IndexFunc(interfaces, func(in discover.Interface) bool { return in.Name == name })
		plan, err := NewPlan(interfaces[i], o)
		if err != nil {
			return nil, err
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

// isApplied reports whether the record says that its plan was applied, all of it.
func (r record) isApplied() bool { return r.Applied != nil && *r.Applied }
