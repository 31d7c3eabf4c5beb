//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Namespaces are entered by hand here, and not with the package ns of the CNI
// plugins: its Do returns only after what it runs, while a thread may have to be
// left behind in libvirt.

// openNetns returns the network namespace of the calling thread. The caller
// closes it.
func openNetns() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	return f, nil
}

// enterNetns moves the calling thread, which must be locked, into ns. Being there
// already it needs no privilege.
func enterNetns(ns *os.File) error {
	here, err := openNetns()
	if err != nil {
		return err
	}
	defer here.Close()
	want, err := ns.Stat()
	if err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	if is, err := here.Stat(); err == nil && os.SameFile(is, want) {
		return nil
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	return nil
}

// within returns a function that locks its goroutine to a thread, for good, and
// calls f there in ns: threads of libvirt and QEMU, if f starts them, are in ns
// too. It is called once; the thread ends with the goroutine.
func within(ns *os.File, f func() error) (func() error, error) {
	// The thread needs a descriptor which lives as long as it does.
	fd, err := unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate network namespace: %w", err)
	}
	own := os.NewFile(uintptr(fd), ns.Name())
	return func() error {
		runtime.LockOSThread()
		defer own.Close()
		if err := enterNetns(own); err != nil {
			return err
		}
		return f()
	}, nil
}

// call runs f, which calls libvirt, in ns, or anywhere if that is nil.
//
// A call of libvirt can't be cancelled. If ctx ends first, call returns that
// and leaves f and its thread behind, for good if libvirt never answers; when f
// succeeds after all, undo is called.
func call(ctx context.Context, ns *os.File, f func() error, undo func()) error {
	if ns != nil {
		var err error
		if f, err = within(ns, f); err != nil {
			return err
		}
	}
	done := make(chan error) // unbuffered: a result is received, or known to be late
	go func() {
		err := f()
		select {
		case done <- err:
		case <-ctx.Done():
			if err == nil {
				undo()
			}
		}
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNoAnswer, context.Cause(ctx))
	}
}
