package prepare

import (
	"cmp"
	"errors"
	"log/slog"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// isApplied reports whether the record says that its plan was applied, all of it.
func (r record) isApplied() bool { return r.Applied != nil && *r.Applied }

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
		if applied && r.isApplied() {
			continue
		}
		r.Applied = &applied
		errs = append(errs, s.save(r))
	}
	return errors.Join(errs...)
}

// Prepared returns the names of the interfaces that are prepared, all of it, as
// far as the records of the calling thread's network namespace tell: not those
// that a process was killed over. A nil log is silent.
func (s *Store) Prepared(log *slog.Logger) ([]string, error) {
	now, err := engine.ReadState(nil)
	if err != nil {
		return nil, err
	}
	records, err := s.load(cmp.Or(log, silent), now)
	var names []string
	for _, r := range records {
		if r.whole(now) && r.Plan.touched(now) {
			names = append(names, r.name())
		}
	}
	return names, err
}

// forget removes those of records that were not there before.
func (s *Store) forget(before, records []record) error {
	var errs []error
	for _, r := range without(records, before) {
		errs = append(errs, s.remove(r.Plan.Interface.Name))
	}
	return errors.Join(errs...)
}
