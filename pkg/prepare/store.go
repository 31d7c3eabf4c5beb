package prepare

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Store is the directory of a pod's records, held for one process at a time.
type Store struct{ dir *statedir.Dir }

// OpenStore makes the directory of the calling thread's network namespace if need
// be, and waits until no other process holds it, or ctx ends. That is dir, or one
// below it if dir has records of another namespace, which may still live. The hold
// dies with the process. Close lets go.
func OpenStore(ctx context.Context, dir string) (*Store, error) {
	d, err := statedir.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	return &Store{d}, nil
}

// Dir is where the records of the namespace are.
func (s *Store) Dir() string { return s.dir.Path }

// Close lets go of the directory.
func (s *Store) Close() { s.dir.Close() }

func (s *Store) path(name string) string { return filepath.Join(s.Dir(), name+".json") }

// Plans returns what is recorded of the store's network namespace, the primary
// interface first. A nil log is silent.
func (s *Store) Plans(log *slog.Logger) ([]Plan, error) {
	log = cmp.Or(log, silent)
	if s.dir.Apart {
		log.Warn("the state directory has records of another network namespace that may still exist: they stay as they are, and this pod's records are kept apart", "stateDir", s.Dir())
	}
	records, err := s.load(log, nil)
	return plansOf(records), err
}

// load reads the records of the store's namespace. Others it leaves alone. One that
// can't be used is an error where nothing can be done without it. The state is that of
// the namespace now; nil: it is read if there is something to compare with it.
func (s *Store) load(log *slog.Logger, now *engine.State) (confirmed []record, err error) {
	records, damaged, err := readRecords(s.Dir(), s.dir.Namespace.Same)
	if err == nil && now == nil && len(records)+len(damaged) > 0 {
		now, err = engine.ReadState(nil)
	}
	if err != nil {
		return nil, err
	}
	for _, d := range damaged {
		if err := unrecorded(now, s.Dir(), nameOf(d.path), d); err != nil {
			return nil, err
		}
		d.warn(log)
	}
	for _, r := range records {
		path := s.path(r.name())
		switch isLeftover, err := r.Plan.confirm(now); {
		case isLeftover:
			log.Warn("ignored a record: nothing is prepared by it, and the pod has changed since", "record", path, "why", err)
		case err != nil:
			return nil, fmt.Errorf("read record %s: %w: the record or the pod was changed by something else, so nothing was done: undo that change, or recreate the pod", path, err)
		default:
			confirmed = append(confirmed, r)
		}
	}
	return confirmed, nil
}

// Kept returns the names of the interfaces of which the directory has a record
// that may be needed: of this namespace, and of others that may still live.
func (s *Store) Kept() ([]string, error) {
	records, _, err := readRecords(s.Dir(), func(n statedir.Namespace) bool { return !n.Gone(s.dir.Namespace) })
	names := make([]string, len(records))
	for i, r := range records {
		names[i] = r.name()
	}
	return names, err
}

// makeRoom sets aside what is in the place of records that are about to be written
// and not their older versions.
func (s *Store) makeRoom(log *slog.Logger, records []record) error {
	for _, r := range records {
		path := s.path(r.name())
		was, err := readRecord(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && was.Namespace.Same(s.dir.Namespace) {
			continue
		}
		if err == nil && !was.Namespace.Gone(s.dir.Namespace) {
			return fmt.Errorf("write record %s: it belongs to the network namespace %s, which may still exist: "+
				"choose another state directory, or remove the file if its pod is gone", path, was.Namespace)
		}
		suffix, why := ".stale", errors.New("its network namespace is gone: the pod's sandbox was created again")
		if err != nil {
			suffix, why = ".damaged", err
		}
		aside, err := setAside(path, suffix)
		if err != nil {
			return err
		}
		log.Warn("renamed an unusable record; the pod's interface is not prepared", "record", aside, "why", why)
	}
	return nil
}

// setAside renames a record, to a name that nothing has, and returns that.
func setAside(path, suffix string) (string, error) {
	aside := path + suffix
	for n := 1; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", fmt.Errorf("set record aside: %w", err)
		}
		aside = fmt.Sprintf("%s%s.%d", path, suffix, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("set record aside: %w", err)
	}
	return aside, nil
}

// save writes a record, on disk before it returns. Its directory is not synced: after a
// crash of the node its namespace is gone, and no record of it is of use.
func (s *Store) save(r record) error {
	r.Writer = moduleVersion()
	err := r.encodePlan()
	var b []byte
	if err == nil {
		b, err = json.MarshalIndent(struct {
			record
			Plan json.RawMessage `json:"plan"`
		}{r, r.plan}, "", "  ")
	}
	if err == nil && len(b) >= statedir.MaxRecord { // nobody would read it
		in := r.Plan.Interface
		err = fmt.Errorf("it would have %d bytes, and at most %d are read: %s has %d routes and %d neighbors: give the pod fewer",
			len(b), statedir.MaxRecord, in.Name, len(in.Routes), len(in.Neighbors)+len(in.Proxies))
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	path := s.path(r.name())
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(s.Dir())); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

func (s *Store) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: this needs the right to remove files from the state directory", err)
		}
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}
