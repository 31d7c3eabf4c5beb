package statedir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A wait for the lock that is given up names who has it, if somebody has.
func TestLockGivenUp(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(canceled, dir); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "process") {
		t.Errorf("nobody has the lock, and it says: %v", err)
	}
	held, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = Open(soon, dir)
	if who := fmt.Sprintf("process %d (", os.Getpid()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), who) {
		t.Errorf("no %q in: %v", who, err)
	}
	// A lock that somebody has removed meanwhile is none.
	if err := os.Remove(filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	held.Close()
}

// A directory of the namespace's own is removed with the last that was in it, and
// one who waits for it gets it nevertheless.
func TestOwnDirectoryIsRemoved(t *testing.T) {
	ns, err := Current()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	own, err := Find(base, ns, true)
	if err != nil {
		t.Fatal(err)
	}
	held, err := Open(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		d, err := Open(t.Context(), own)
		if err == nil {
			_, err = os.Lstat(filepath.Join(own, lockName))
			d.Close()
		}
		got <- err
	}()
	held.Close()
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(own); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
}

// What is no file, but has the lock's name, is named, and nobody waits for it.
func TestLockIsRegular(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"link":      func(path string) error { return os.Symlink("elsewhere", path) },
		"FIFO":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lock := filepath.Join(dir, lockName)
			if err := make(lock); err != nil {
				t.Fatal(err)
			}
			d, err := Lock(t.Context(), dir)
			if err == nil {
				d.Close()
			}
			if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), lock) || !strings.Contains(err.Error(), "remove it") {
				t.Errorf("got %v", err)
			}
			if _, err := os.Lstat(filepath.Join(dir, "elsewhere")); err == nil {
				t.Error("the link was followed")
			}
		})
	}
}
