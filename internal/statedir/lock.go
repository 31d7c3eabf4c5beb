package statedir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const lockName = "lock"

// UnusableError is that a state directory can't be made, written or read.
type UnusableError struct {
	Doing string // "make state directory", …
	Err   error
}

func (e *UnusableError) Error() string { return e.Doing + ": " + e.Err.Error() }
func (e *UnusableError) Unwrap() error { return e.Err }

// Dir is the directory of a namespace's state, which one process has locked.
type Dir struct {
	Path      string
	Namespace Namespace // whose it is; zero: it was locked, not opened
	Apart     bool      // the directory above has records of another namespace, which may still live

	own  bool // nothing but this namespace's state is there
	lock *os.File
}

// Open makes the directory of the calling thread's network namespace, which Find
// finds in base, if need be, and waits until no other process has it locked, or ctx
// ends. The lock ends with the process. Close it.
func Open(ctx context.Context, base string) (*Dir, error) { return open(ctx, base, Lock) }

// OpenExisting is Open for who must not make the directory again once somebody has removed
// it; the error wraps [fs.ErrNotExist] then.
func OpenExisting(ctx context.Context, base string) (*Dir, error) {
	return open(ctx, base, LockExisting)
}

func open(ctx context.Context, base string, lock func(context.Context, string) (*Dir, error)) (*Dir, error) {
	ns, err := Current()
	if err != nil {
		return nil, err
	}
	for ctx.Err() == nil {
		path, err := Find(base, ns, false)
		if err != nil {
			return nil, err
		}
		d, err := lock(ctx, path)
		if err != nil {
			return nil, err
		}
		// Another namespace may have come to be there meanwhile.
		again, err := Find(base, ns, false)
		if err == nil && again == path {
			d.Namespace = ns
			if d.own = filepath.Base(path) == ns.dirName(); d.own {
				_, d.Apart, err = whose(filepath.Dir(path), ns)
			}
			if err == nil {
				return d, nil
			}
		}
		d.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("lock state directory %s: %w", base, context.Cause(ctx))
}

// LockFile makes a file, if need be, and waits until no other process has it locked, or
// ctx ends. The lock ends with the process, or when the file is closed.
func LockFile(ctx context.Context, path string) (*os.File, error) {
	lock, err := openRegular(path, os.O_RDWR|os.O_CREATE)
	if err == nil {
		if err = Flock(ctx, lock); err == nil {
			return lock, nil
		}
		lock.Close()
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}

// Lock is Open of a directory that was found before.
func Lock(ctx context.Context, path string) (*Dir, error) {
	for {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, &UnusableError{"make state directory", err}
		}
		d, err := lockDir(ctx, path, os.O_CREATE)
		if !errors.Is(err, fs.ErrNotExist) { // else whoever had it locked has removed the directory just now
			return d, err
		}
	}
}

// LockExisting is Lock of a directory that is not made; the error wraps [fs.ErrNotExist] if
// it is not there.
func LockExisting(ctx context.Context, path string) (*Dir, error) { return lockDir(ctx, path, 0) }

// CheckWritable tells why no files can be removed from the directory, or written there; a full
// disk is no reason.
func CheckWritable(path string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return &UnusableError{"write to state directory " + path, err}
	}
	return nil
}

// TryLock is LockExisting that waits for nobody: the error wraps [unix.EWOULDBLOCK] while
// somebody else has the directory locked.
func TryLock(path string) (*Dir, error) {
	name := filepath.Join(path, lockName)
	lock, err := openRegular(name, os.O_RDONLY)
	if err == nil {
		err = tryLock(lock)
		if err == nil && isAt(name, lock) {
			return &Dir{Path: path, lock: lock}, nil
		}
		lock.Close()
	}
	return nil, fmt.Errorf("lock state directory %s: %w", path, cmp.Or(err, fs.ErrNotExist))
}

// lockDir locks a directory that is there, by a file that is made if flags say so: one that
// is there can be locked where nothing can be written.
func lockDir(ctx context.Context, path string, flags int) (*Dir, error) {
	name := filepath.Join(path, lockName)
	for {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("lock state directory %s: %w", path, context.Cause(ctx))
		}
		lock, err := openRegular(name, os.O_RDONLY|flags)
		switch {
		case errors.Is(err, ErrUnfit):
			return nil, fmt.Errorf("open state directory: %w: remove it", err)
		case err != nil:
			return nil, &UnusableError{"open state directory", err}
		}
		if err := Flock(ctx, lock); err != nil {
			lock.Close()
			return nil, fmt.Errorf("lock state directory %s: %w", path, err)
		}
		if isAt(name, lock) {
			return &Dir{Path: path, lock: lock}, nil
		}
		release(lock)
	}
}

// Close unlocks the directory, and removes it if it is the namespace's own and nothing
// is left in it.
func (d *Dir) Close() {
	if entries, err := os.ReadDir(d.Path); d.own && err == nil && len(entries) == 1 && entries[0].Name() == lockName {
		_ = os.Remove(filepath.Join(d.Path, lockName))
		_ = os.Remove(d.Path) // an error: somebody has come
	}
	release(d.lock)
}

// isAt tells whether the file is still the one of that name.
func isAt(name string, f *os.File) bool {
	there, err := os.Lstat(name)
	if err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(there, info)
}

// retry is how often Flock asks: flock(2) can't be interrupted by a context.
const retry = 20 * time.Millisecond

// Flock locks a file or a directory for its holder alone (flock(2)), and waits for that
// until ctx ends. To unlock it, close the file.
func Flock(ctx context.Context, f *os.File) error {
	for {
		if err := tryLock(f); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s is using it", context.Cause(ctx), Process(fileHolder(f)))
		case <-time.After(retry):
		}
	}
}

func tryLock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// release closes the file and unlocks it, also where a process that is
// being started has a copy of the descriptor for a moment.
func release(f *os.File) {
	unlock(f)
	f.Close()
}

func unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }
