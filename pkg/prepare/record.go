package prepare

import (
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
	"golang.org/x/sys/unix"
)

// DefaultStateDir is where the records are by default.
const DefaultStateDir = "/run/virt-launcher-net"

// recordVersion changes when an older program could misread a record.
const recordVersion = 1

// record is what is written down before the first change: the kernel forgets
// the pod's routes once its interface is rewired.
type record struct {
	Version   int       `json:"version"`
	Namespace namespace `json:"namespace"`
	Order     int       `json:"order"` // the lowest is the primary interface's
	// Applied is set once the last change of an apply is done, and cleared before
	// a restore begins. nil: an older program wrote the record.
	Applied *bool             `json:"applied,omitempty"`
	Knobs   map[string]string `json:"sysctls,omitempty"`
	Plan    Plan              `json:"plan"`
}

// namespace identifies a network namespace over the node's lifetime.
type namespace struct {
	BootID string `json:"bootID"`
	Cookie uint64 `json:"cookie,omitempty"` // SO_NETNS_COOKIE; 0 before Linux 5.14
	Inode  uint64 `json:"inode"`            // may be used again once the namespace is gone
}

func currentNamespace() (namespace, error) {
	var ns namespace
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ns, fmt.Errorf("read boot id: %w", err)
	}
	ns.BootID = strings.TrimSpace(string(id))
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return ns, fmt.Errorf("identify network namespace: %w", err)
	}
	ns.Inode = st.Ino
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return ns, fmt.Errorf("identify network namespace: %w", err)
	}
	defer unix.Close(fd)
	ns.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return ns, fmt.Errorf("identify network namespace: %w", err)
	}
	return ns, nil
}

func (n namespace) same(m namespace) bool {
	if n.Cookie != 0 && m.Cookie != 0 {
		return n.BootID == m.BootID && n.Cookie == m.Cookie
	}
	return n.BootID == m.BootID && n.Inode == m.Inode
}

// Store is the directory of a pod's records, held for one process at a time.
type Store struct {
	dir  string
	lock *os.File
}

// OpenStore makes the directory if need be and waits until no other process
// holds it, or ctx ends. The hold dies with the process. Close lets go.
func OpenStore(ctx context.Context, dir string) (*Store, error) {
	way := "choose a writable --state-dir (in a pod: an emptyDir volume)"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w: %s", err, way)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w: %s", err, way)
	}
	// flock(2) can't be interrupted by a context. If ctx ends first, the
	// goroutine gets the lock some day and lets go of it at once.
	locked := make(chan error, 1)
	go func() {
		locked <- flock(lock)
	}()
	select {
	case err := <-locked:
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
		}
		return &Store{dir: dir, lock: lock}, nil
	case <-ctx.Done():
		go func() {
			<-locked
			lock.Close()
		}()
		return nil, fmt.Errorf("lock state directory %s: %w: another virt-launcher-net is at work on this pod", dir, context.Cause(ctx))
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close lets go of the directory.
func (s *Store) Close() {
	s.lock.Close()
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name+".json") }

// Plans returns what is recorded of the calling thread's network namespace,
// the primary interface first. Records of another namespace (the pod's sandbox
// was made anew in place) are set aside with a warning.
func (s *Store) Plans(log *slog.Logger) ([]Plan, error) {
	records, err := s.load(log)
	if err != nil {
		return nil, err
	}
	return plansOf(records), nil
}

// ReadPlans is [Store.Plans] without holding the directory and without setting
// anything aside: for looking.
func ReadPlans(log *slog.Logger, dir string) ([]Plan, error) {
	current, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	records, useless, err := readRecords(dir)
	if err != nil {
		return nil, err
	}
	for _, u := range useless {
		log.Warn("left out a record that can't be used", "record", u.path, "why", u.why)
	}
	return plansOf(slices.DeleteFunc(records, func(r record) bool { return !r.Namespace.same(current) })), nil
}

func plansOf(records []record) []Plan {
	plans := make([]Plan, len(records))
	for i, r := range records {
		plans[i] = r.Plan
	}
	return plans
}

// load reads the records of the current namespace and sets others aside.
func (s *Store) load(log *slog.Logger) ([]record, error) {
	current, err := currentNamespace()
	if err != nil {
		return nil, err
	}
	all, useless, err := readRecords(s.dir)
	if err != nil {
		return nil, err
	}
	for _, u := range useless {
		if err := u.needed(); err != nil {
			return nil, err
		}
		if err := setAside(u.path, ".damaged"); err != nil {
			return nil, err
		}
		log.Warn("set aside a record that can't be used: the pod's interface is as a CNI leaves it", "record", u.path+".damaged", "why", u.why)
	}
	var records []record
	for _, r := range all {
		if r.Namespace.same(current) {
			records = append(records, r)
			continue
		}
		path := s.path(r.Plan.Interface.Name)
		if err := setAside(path, ".stale"); err != nil {
			return nil, err
		}
		log.Warn("set aside a record of another network namespace: the pod's sandbox was made anew", "record", path+".stale")
	}
	return records, nil
}

func setAside(path, suffix string) error {
	if err := os.Rename(path, path+suffix); err != nil {
		return fmt.Errorf("set record aside: %w", err)
	}
	return nil
}

// useless is a record that can't be used: damaged, or another program's.
type useless struct {
	path string
	why  error
}

// needed returns an error where nothing can be done without the record: the
// interface is not as a CNI leaves it, so it was prepared, and nobody else
// knows what it had.
func (u useless) needed() error {
	s, err := readState()
	if err != nil {
		return err
	}
	name := u.name()
	if s.asByCNI(name) {
		return nil
	}
	return fmt.Errorf("read record %s: %w: %s is prepared, and what the CNI had given it is lost with the record: make the pod anew",
		u.path, u.why, name)
}

func readRecords(dir string) (records []record, unusable []useless, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, nil, fmt.Errorf("list records: %w", err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // restored by another process just now
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read record: %w", err)
		}
		r, err := parseRecord(strings.TrimSuffix(filepath.Base(path), ".json"), b)
		if err != nil {
			unusable = append(unusable, useless{path, err})
			continue
		}
		records = append(records, r)
	}
	slices.SortStableFunc(records, func(a, b record) int { return a.Order - b.Order })
	return records, unusable, nil
}

// parseRecord reads the record of the interface of that name.
func parseRecord(name string, b []byte) (record, error) {
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("it is damaged: %w", err)
	}
	if r.Version != recordVersion {
		return record{}, fmt.Errorf("it has version %d, this program knows %d", r.Version, recordVersion)
	}
	if name != r.Plan.Interface.Name || r.Plan.Datapath != "bridge" || r.Plan.validate() != nil {
		return record{}, errors.New("it is damaged: it holds no plan for " + name)
	}
	return r, nil
}

// save writes a record, on disk before it returns.
func (s *Store) save(r record) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	path := s.path(r.Plan.Interface.Name)
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(s.dir)); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return s.sync()
}

func (s *Store) remove(name string) error {
	if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record: %w", err)
	}
	return s.sync()
}

// sync makes a change of the directory itself durable.
func (s *Store) sync() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync state directory: %w", err)
	}
	return nil
}
