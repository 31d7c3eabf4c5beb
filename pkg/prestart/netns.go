package prestart

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// in runs fn in the network namespace at path, on a thread of its own; an
// empty path is the calling thread's. Goroutines that fn starts are elsewhere:
// whatever must be in the namespace fn opens itself.
func in(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := openNetns(path)
	if err != nil {
		return err
	}
	defer target.Close()
	done := make(chan error)
	go func() { done <- within(target, fn) }()
	return <-done
}

func openNetns(path string) (*os.File, error) {
	// A pipe must not make it wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if errors.Is(err, unix.ENOTTY) || err == nil && kind != unix.CLONE_NEWNET {
		err = errors.New("it is none; that of a process is /proc/PID/ns/net")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return f, nil
}

// within runs fn on a locked thread, which goes back where it came from. If it
// does not find back it ends with its goroutine.
func within(target *os.File, fn func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("open the current network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		if errors.Is(err, unix.EPERM) {
			err = fmt.Errorf("%w: this needs the capability SYS_ADMIN (securityContext.capabilities.add: [SYS_ADMIN])", err)
		}
		return fmt.Errorf("enter network namespace %s: %w", target.Name(), err)
	}
	defer func() {
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return fn()
}
