package prepare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// unfinished matches what a process that was killed left of writing a record. Who writes
// records holds the store, so none is being written.
func unfinished(name string) bool {
	of, ok := statedir.Unfinished(name)
	return ok && strings.HasSuffix(of, ".json") && of != ".json"
}

// Restore puts the named pod interfaces, or all that are recorded, back as the
// CNI left them; all of them or none. What is not prepared is nothing to do; what
// is prepared but not recorded is a [UnrecordedError]. A nil log is silent.
func Restore(ctx context.Context, log *slog.Logger, store *Store, names ...string) error {
	log = cmp.Or(log, silent)
	recorded, err := store.load(log, nil)
	if err == nil {
		err = statedir.Remove(store.Dir(), unfinished)
	}
	if err != nil {
		return err
	}
	records := slices.DeleteFunc(slices.Clone(recorded), func(r record) bool {
		return len(names) > 0 && !slices.Contains(names, r.name())
	})
	if err := store.checkUnrecorded(log, names, records); err != nil || len(records) == 0 {
		return err
	}
	k, err := engine.Open(log)
	if err != nil {
		return err
	}
	defer k.Close()
	if err := store.mark(records, false); err != nil { // what is half put back is not whole
		log.Warn("can't mark the record as half restored: if this process is killed, restore again", "error", err)
	}
	if err := putBack(ctx, log, k, records, without(recorded, records)); err != nil {
		errs := []error{fmt.Errorf("restore: %w", err)}
		for _, r := range records { // marked as before
			errs = append(errs, store.save(r))
		}
		return errors.Join(errs...)
	}
	for _, r := range records {
		log.Info("restored", "interface", r.name())
	}
	return store.forget(nil, records)
}

// putBack restores what the records say; sysctls too, if no other interface of the
// pod that needs them stays prepared.
func putBack(ctx context.Context, log *slog.Logger, k *engine.Kernel, records, staying []record) error {
	s, err := engine.ReadState(sysctlsOf(plansOf(append(slices.Clip(records), staying...))))
	if err != nil {
		return err
	}
	ops, notes, err := restoreOps(s, records, staying)
	if err != nil {
		return err
	}
	for _, note := range notes {
		log.Warn("restored only in part", "what", note)
	}
	return k.Execute(ctx, ops)
}

// restoreOps are everything that is still to do for the interfaces of records to be
// as the CNI left them, beside those that stay prepared. Notes are what is left alone.
func restoreOps(s *engine.State, records, staying []record) (ops []engine.Op, notes []string, err error) {
	var all engine.Steps
	var errs []error
	were := map[string]string{}
	for _, r := range records {
		st, more, err := r.Plan.wiring.Restore(s)
		errs, notes = append(errs, err), append(notes, more...)
		all.Append(st)
		for _, name := range r.Plan.sysctls() {
			were[name] = r.Sysctls[name]
		}
	}
	for _, r := range staying {
		for _, name := range r.Plan.sysctls() {
			delete(were, name)
		}
	}
	ops = all.Ops()
	for _, name := range slices.Sorted(maps.Keys(were)) {
		if was, now := were[name], s.Sysctls[name]; was != "" && now != "" && was != now {
			ops = append(ops, engine.SetSysctl{Name: name, From: now, To: was})
		}
	}
	return ops, notes, errors.Join(errs...)
}

// without are those of the records that are not of the interfaces of others.
func without(records, others []record) []record {
	return slices.DeleteFunc(slices.Clone(records), func(r record) bool { return indexOf(others, r.name()) >= 0 })
}
