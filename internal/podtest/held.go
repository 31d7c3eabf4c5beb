package podtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// held is a directory of what would outlive a test that is killed. It is locked as long as
// the test's process lives.
type held struct {
	dir  string
	lock *os.File
}

const heldPrefix = "podtest-held-"

// mountFile is the file, in a held directory, with the path of what is mounted.
const mountFile = "mounted"

// sweepOnce removes what earlier processes have left, before this one makes anything.
var sweepOnce = sync.OnceValue(sweep)

// hold makes a directory. Close it.
func hold() (*held, error) {
	if err := sweepOnce(); err != nil {
		return nil, err
	}
	for {
		dir, err := os.MkdirTemp("", heldPrefix)
		if err != nil {
			return nil, err
		}
		h, err := lockHeld(dir, unix.LOCK_EX)
		if h != nil || err != nil {
			return h, err
		}
		// Somebody has swept it before it was locked.
	}
}

// lockHeld locks a directory; nil: it is locked, or gone.
func lockHeld(dir string, how int) (*held, error) {
	lock, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), how)
	now, nowErr := os.Stat(dir)
	was, wasErr := lock.Stat()
	if err == nil && nowErr == nil && wasErr == nil && os.SameFile(now, was) {
		return &held{dir, lock}, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(nowErr, os.ErrNotExist) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", dir, errors.Join(err, nowErr, wasErr))
}

// close removes the directory, and then lets go of it.
func (h *held) close() error { return errors.Join(os.RemoveAll(h.dir), h.lock.Close()) }

// sweep removes the directories of processes that were killed, unmounts what they had
// mounted, and removes the directories of the tests that it was in.
func sweep() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), heldPrefix+"*"))
	if err != nil {
		return err
	}
	var errs []error
	var left []*held
	for _, dir := range dirs {
		h, err := lockHeld(dir, unix.LOCK_EX|unix.LOCK_NB)
		if errs = append(errs, err); h != nil {
			left = append(left, h)
			errs = append(errs, unmount(h.mounted()))
		}
	}
	for _, h := range left { // when nothing is mounted in them any more
		if target := h.mounted(); target != "" {
			errs = append(errs, os.RemoveAll(testDir(target)))
		}
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// mounted is what is mounted for the directory; empty: nothing.
func (h *held) mounted() string {
	target, _ := os.ReadFile(filepath.Join(h.dir, mountFile))
	if testDir(string(target)) == "" { // nobody who mounts has put it there
		return ""
	}
	return string(target)
}

// testDir is the directory of a test that a path is in; empty: none.
func testDir(path string) string {
	below, err := filepath.Rel(os.TempDir(), path)
	name, _, _ := strings.Cut(below, string(filepath.Separator))
	if err != nil || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") && !strings.HasPrefix(name, "Benchmark") {
		return ""
	}
	return filepath.Join(os.TempDir(), name)
}

// unmount unmounts what may be mounted.
func unmount(target string) error {
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

// Mount mounts something in a directory of [testing.T.TempDir]: a file system of the type,
// or source itself if there is none. It is unmounted at the test's end; if the test is
// killed, by the next one that mounts something.
func Mount(t testing.TB, source, target, fstype, data string) {
	t.Helper()
	h, err := hold()
	if err != nil {
		t.Fatal(err)
	}
	var flags uintptr
	if fstype == "" {
		flags = unix.MS_BIND
	}
	if testDir(target) == "" {
		t.Fatalf("%s is in no directory of a test", target)
	}
	err = os.WriteFile(filepath.Join(h.dir, mountFile), []byte(target), 0o600)
	if err == nil {
		err = os.NewSyscallError("mount", unix.Mount(source, target, fstype, flags, data))
	}
	if err != nil {
		t.Fatal(errors.Join(fmt.Errorf("mount %s: %w", target, err), h.close()))
	}
	t.Cleanup(func() {
		if err := errors.Join(unmount(target), h.close()); err != nil {
			t.Error(err)
		}
	})
}
