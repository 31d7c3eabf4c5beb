package prepare

import (
	"errors"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// whole reports whether the plan was applied, all of it, whatever has become of
// it since. A record of an older program does not say: a VM on the tap, or that all
// links are there, tells then.
func (r record) whole(s *engine.State) bool {
	if r.Applied != nil {
		return *r.Applied
	}
	isMissing := func(l Link) bool { return s.Link(l.Name) == nil }
	return s.InUse(r.Plan.NIC().Tap) || !slices.ContainsFunc(r.Plan.Links(), isMissing)
}

// mark writes records with the mark that says whether their plans are applied.
// The records themselves are as they were, and those that say so on disk already
// are not written.
func (s *Store) mark(records []record, applied bool) error {
	var errs []error
	for _, r := range records {
		if applied && r.Applied != nil && *r.Applied {
			continue
		}
		r.Applied = &applied
		errs = append(errs, s.save(r))
	}
	return errors.Join(errs...)
}

// saveAll writes those of records that are of the interfaces of others.
func (s *Store) saveAll(records, others []record) error {
	var errs []error
	for _, r := range records {
		if indexOf(others, r.name()) >= 0 {
			errs = append(errs, s.save(r))
		}
	}
	return errors.Join(errs...)
}

// forget removes those of records that were not there before.
func (s *Store) forget(before, records []record) error {
	var errs []error
	for _, r := range without(records, before) {
		errs = append(errs, s.remove(r.Plan.Interface.Name))
	}
	return errors.Join(errs...)
}
