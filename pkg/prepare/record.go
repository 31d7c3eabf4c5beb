package prepare

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
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
	Writer    string             `json:"writer,omitempty"` // the version of this module that wrote it; empty: not known
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

// ReadPlans returns what dir, as [Store.Dir] tells it, has recorded of the calling
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

func (e *damagedError) Unwrap() error { return e.cause }

func (e *damagedError) warn(log *slog.Logger) {
	log.Warn("ignored an unusable record", "record", e.path, "why", e.cause)
}

// newerError is a record that a newer version of this program wrote.
type newerError struct {
	version int
	writer  string
}

func (e *newerError) Error() string {
	by := "a newer virt-launcher-net"
	if e.writer != "" {
		by += fmt.Sprintf(", %.64q", e.writer)
	}
	return fmt.Sprintf("it was written by %s: its version is %d, and this program reads 1 to %d", by, e.version, recordVersion)
}

// moduleVersion is the version of this module in the running program, which may be
// another's; empty: it was built of no version that has a name.
var moduleVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module && m.Version != "(devel)" {
			return m.Version
		}
	}
	return ""
})

// module is the path of the module that this package is of.
const module = "github.com/virt-launcher-net/virt-launcher-net"

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
	err := json.Unmarshal(b, &r)
	switch {
	case r.Version > recordVersion: // whatever else is in it
		return record{}, &newerError{r.Version, r.Writer}
	case err != nil:
		return record{}, fmt.Errorf("it is damaged: %w", err)
	case r.Version < 1:
		return record{}, fmt.Errorf("it is damaged: its version is %d", r.Version)
	}
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
