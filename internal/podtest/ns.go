package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace held by a file descriptor alone: no bind mount,
// no process. It ends when it is closed and nothing else lives in it, at the
// latest with this process. Safe for use by several goroutines.
type NS struct {
	file *os.File
}

// New makes a network namespace for a test and closes it at the test's end.
// Without the privilege to make one the test fails, or is skipped if the
// environment has ALLOW_SKIP=1.
func New(t testing.TB) *NS {
	t.Helper()
	ns, err := NewNS()
	requireNS(t, err)
	closeAfter(t, ns.Close)
	return ns
}

// requireNS ends the test if err is not nil; it skips the test if that is for
// want of privileges and the environment allows it.
func requireNS(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, unix.EPERM) && os.Getenv("ALLOW_SKIP") == "1" {
		t.Skipf("needs the privilege to make network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// closeAfter closes something at the test's end; an error fails the test.
func closeAfter(t testing.TB, closeIt func() error) {
	t.Cleanup(func() {
		if err := closeIt(); err != nil {
			t.Error(err)
		}
	})
}

// NewNS makes a network namespace with its loopback up. It needs
// CAP_SYS_ADMIN; without, the error is unix.EPERM. The caller closes it.
func NewNS() (*NS, error) {
	file, err := unshareNet()
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	ns := &NS{file: file}
	if err := ns.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		return nil, errors.Join(fmt.Errorf("set loopback up: %w", err), ns.Close())
	}
	return ns, nil
}

// unshareNet opens a new namespace and brings the thread back to its own.
func unshareNet() (*os.File, error) {
	origin, err := lockCurrent()
	if err != nil {
		return nil, err
	}
	defer origin.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	file, err := os.Open("/proc/thread-self/ns/net")
	return file, errors.Join(err, unlockIn(origin))
}

// lockCurrent locks the goroutine to its thread and opens the thread's
// network namespace; unlocked again on error.
func lockCurrent() (*os.File, error) {
	runtime.LockOSThread()
	origin, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
	}
	return origin, err
}

// unlockIn takes the thread to ns and unlocks it. A thread that cannot be
// taken there stays locked, so that it ends with its goroutine.
func unlockIn(ns *os.File) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("restore thread's network namespace: %w", err)
	}
	runtime.UnlockOSThread()
	return nil
}

// Path names the namespace for nsenter --net=, libcni and --netns. It is valid
// in every process while this one lives and ns is open.
func (ns *NS) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.file.Fd())
}

// Close lets go of the namespace. The kernel ends it, with its links, once no
// process or descriptor is in it.
func (ns *NS) Close() error {
	return ns.file.Close()
}

// Do runs fn in the namespace, on the calling goroutine locked to its thread.
// Goroutines that fn starts are not in the namespace; sockets and processes
// that it opens are. Do may be nested.
func (ns *NS) Do(fn func() error) (err error) {
	origin, err := lockCurrent()
	if err != nil {
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer origin.Close()
	if err := unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	defer func() { err = errors.Join(err, unlockIn(origin)) }()
	return fn()
}

// In is Do for a test, which ends on an error.
func (ns *NS) In(t testing.TB, fn func() error) {
	t.Helper()
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

// Command is a command in the namespace, not started. It is killed when ctx
// ends or this process dies.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	return Command(ctx, ns, name, args...)
}

// Output runs a command in the namespace and returns what it printed on
// standard output. The error has what it printed on standard error.
func (ns *NS) Output(ctx context.Context, name string, args ...string) (string, error) {
	return output(ns.Command(ctx, name, args...), name, args)
}

// Run runs a command in the namespace and returns what it printed on standard
// output. The test ends if the command fails.
func (ns *NS) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := ns.Output(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func output(cmd *Cmd, name string, args []string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s %s: %w\n%s%s",
			name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Batch runs ip(8) command lines (without the word "ip"), all in one process,
// until one fails; the error names it.
func (ns *NS) Batch(ctx context.Context, lines ...string) error {
	cmd := ns.Command(ctx, "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if _, err := output(cmd, "ip", lines); err != nil {
		return err
	}
	return nil
}

// IP is Batch for a test, which ends if a line fails.
func (ns *NS) IP(t testing.TB, lines ...string) {
	t.Helper()
	if err := ns.Batch(t.Context(), lines...); err != nil {
		t.Fatal(err)
	}
}

// Sysctl sets a kernel parameter of the namespace; the key is as below
// /proc/sys, with slashes: "net/ipv4/ip_forward".
func (ns *NS) Sysctl(key, value string) error {
	return ns.Do(func() error {
		if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
			return fmt.Errorf("set sysctl %s to %s: %w", key, value, err)
		}
		return nil
	})
}

// Listen listens for TCP connections in the namespace until the test's end.
func (ns *NS) Listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var listener net.Listener
	if err := ns.Do(func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}
