package prepare

import (
	"errors"
	"log/slog"
	"slices"
)

// isApplied reports whether the record says that its plan was applied, all of it.
func (r record) isApplied() bool { return r.Applied != nil && *r.Applied }

// whole reports whether the plan was applied, all of it, whatever has become of
// it since. A record of an older program does not say: a VM on the tap, or the
// placeholder, which comes last, tells then.
func (r record) whole(s state) bool {
	if r.Applied != nil {
		return *r.Applied
	}
	if r.Plan.inUse(s) {
		return true
	}
	ops, err := r.Plan.placeholderOps(s)
	return err == nil && len(ops) == 0
}

// fresh are the records of plans that are not applied, or not all of them.
func (s state) fresh(records []record) []record {
	return slices.DeleteFunc(slices.Clone(records), func(r record) bool { return r.whole(s) })
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

// saveAll writes records as they are.
func (s *Store) saveAll(records []record) error {
	var errs []error
	for _, r := range records {
		errs = append(errs, s.save(r))
	}
	return errors.Join(errs...)
}

// Prepared returns the names of the interfaces that are prepared, all of it, as
// far as the records of the calling thread's network namespace tell: not those
// that a process was killed over. A nil log is silent.
func (s *Store) Prepared(log *slog.Logger) ([]string, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	now, err := readState()
	if err != nil {
		return nil, err
	}
	records, err := s.load(log, &now)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, r := range records {
		if r.whole(now) && r.Plan.touched(now) {
			names = append(names, r.Plan.Interface.Name)
		}
	}
	return names, nil
}
