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
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// silent is the log of whoever wants none.
var silent = slog.New(slog.DiscardHandler)

// DefaultStateDir is where the records are by default.
const DefaultStateDir = "/run/virt-launcher-net"

// recordVersion changes when an older program could misread a record. Those of
// version 1 are read, too.
const recordVersion = 2

// record is what is written down before the first change: the kernel forgets
// the pod's routes once its interface is rewired.
type record struct {
	Version   int                `json:"version"`
	Namespace statedir.Namespace `json:"namespace"`
	Order     int                `json:"order"` // the lowest is the primary interface's
	// Applied is set once the last change of an apply is done, and cleared before
	// a restore begins. nil: an older program wrote the record.
	Applied *bool             `json:"applied,omitempty"`
	Sysctls map[string]string `json:"sysctls,omitempty"` // as they were before
	Plan    Plan              `json:"plan"`
	// plan is the Plan as JSON: a record is written twice, and differs in nothing but
	// Applied. nil: it is not encoded yet.
	plan json.RawMessage
}

// name is the pod interface's.
func (r record) name() string { return r.Plan.Interface.Name }

// indexOf finds the record of an interface; -1: there is none.
func indexOf(records []record, name string) int {
	return slices.IndexFunc(records, func(r record) bool { return r.name() == name })
}

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

// ReadPlans returns what dir, found by [statedir.Find], has recorded of the calling
// thread's network namespace, without holding it: for looking. A nil log is silent.
func ReadPlans(log *slog.Logger, dir string) ([]Plan, error) {
	current, err := statedir.Current()
	if err != nil {
		return nil, err
	}
	records, damaged, err := readRecords(dir, current.Same)
	for _, d := range damaged {
		d.warn(cmp.Or(log, silent))
	}
	return plansOf(records), err
}

func plansOf(records []record) []Plan {
	plans := make([]Plan, len(records))
	for i, r := range records {
		plans[i] = r.Plan
	}
	return plans
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
			log.Warn("ignored a record: nothing that it describes exists", "record", path, "why", err)
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

// readRecords reads the records in dir of network namespaces that are wanted.
func readRecords(dir string, isWanted func(statedir.Namespace) bool) (records []record, damaged []*damagedError, err error) {
	paths, err := statedir.Records(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		r, err := readRecord(path)
		switch damage := (*damagedError)(nil); {
		case err == nil && isWanted(r.Namespace):
			records = append(records, r)
		case errors.As(err, &damage):
			damaged = append(damaged, damage)
		case err == nil, errors.Is(err, fs.ErrNotExist): // restored by another process just now
		default:
			return nil, nil, err
		}
	}
	slices.SortStableFunc(records, func(a, b record) int { return a.Order - b.Order })
	return records, damaged, nil
}

// damagedError is a record that can't be used: damaged, or another program's.
type damagedError struct {
	path  string
	cause error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("record %s can't be used: %v", e.path, e.cause)
}

func (e *damagedError) warn(log *slog.Logger) {
	log.Warn("ignored an unusable record", "record", e.path, "why", e.cause)
}

// readRecord reads a record from its file. The error is a [damagedError] if it is
// none.
func readRecord(path string) (record, error) {
	b, err := statedir.ReadFile(path, statedir.MaxRecord)
	if err != nil && !errors.Is(err, statedir.ErrUnfit) {
		return record{}, fmt.Errorf("read record: %w", err)
	}
	var r record
	if err == nil {
		r, err = parseRecord(nameOf(path), b)
	}
	if err != nil {
		return record{}, &damagedError{path, err}
	}
	return r, nil
}

// nameOf is the interface's whose record is in a file of that name.
func nameOf(path string) string { return strings.TrimSuffix(filepath.Base(path), ".json") }

// parseRecord reads the record of the interface of that name.
func parseRecord(name string, b []byte) (record, error) {
	var r struct {
		record
		Plan json.RawMessage `json:"plan"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("it is damaged: %w", err)
	}
	if r.Version < 1 || r.Version > recordVersion {
		return record{}, fmt.Errorf("its version is %d, and this program reads 1 to %d", r.Version, recordVersion)
	}
	var err error
	if r.record.Plan, err = decodePlan(name, r.Version, r.Plan); err != nil {
		return record{}, fmt.Errorf("it is damaged: %w", err)
	}
	r.Version = recordVersion
	return r.record, nil
}

func (r *record) encodePlan() (err error) {
	if r.plan == nil {
		r.plan, err = json.Marshal(r.Plan)
	}
	return err
}

// save writes a record, on disk before it returns. Its directory is not synced: after a
// crash of the node its namespace is gone, and no record of it is of use.
func (s *Store) save(r record) error {
	err := r.encodePlan()
	var b []byte
	if err == nil {
		b, err = json.MarshalIndent(struct {
			record
			Plan json.RawMessage `json:"plan"`
		}{r, r.plan}, "", "  ")
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
		return fmt.Errorf("remove record: %w", err)
	}
	return nil
}
