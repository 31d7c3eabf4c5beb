package prestart

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// InNetns runs f in the pod's network namespace, on a thread that is locked for that
// while f runs. A process that f starts (exec.Cmd.Start) is born there, as a QEMU
// must be to open the tap; so is a socket that f opens. Goroutines that f starts
// are elsewhere. It returns what f does, or why it can't enter the namespace, which
// needs SYS_ADMIN. Without [Hook.Netns] f runs where the caller is.
func (h Hook) InNetns(f func() error) error { return in(h.Netns, f) }

// in runs fn in the network namespace at path, on a thread of its own; an
// empty path is the calling thread's. Goroutines that fn starts are elsewhere:
// whatever must be in the namespace fn opens itself.
func in(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := ns.GetNS(path)
	if notNS := (ns.NSPathNotNSErr{}); errors.As(err, &notNS) {
		err = statedir.ErrNoNamespace
	}
	if missing := (ns.NSPathNotExistErr{}); errors.As(err, &missing) {
		err = fmt.Errorf("%w: the pod is gone, or it is another path", fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	defer target.Close()
	entered := false
	err = target.Do(func(ns.NetNS) error {
		entered = true
		return fn()
	})
	if entered || err == nil {
		return err
	}
	// The cause is but text in it.
	switch text := err.Error(); {
	case strings.HasSuffix(text, unix.EPERM.Error()):
		err = fmt.Errorf("%w: this needs the capability SYS_ADMIN (securityContext.capabilities.add: [SYS_ADMIN])", unix.EPERM)
	case strings.HasSuffix(text, unix.EINVAL.Error()): // a namespace of another kind (setns(2))
		err = statedir.ErrNoNamespace
	}
	return fmt.Errorf("enter network namespace %s: %w", path, err)
}

// pin returns a path of the calling thread's network namespace that leads there from
// any goroutine, as long as the file is open; nil: other threads are there, too.
func pin() (*os.File, error) {
	here, err := statedir.Of("")
	if err != nil {
		return nil, err
	}
	others := make(chan statedir.Namespace)
	go func() {
		elsewhere, _ := statedir.Of("")
		others <- elsewhere
	}()
	if here.Same(<-others) {
		return nil, nil
	}
	return os.Open("/proc/thread-self/ns/net")
}

// netns runs functions in a network namespace that was entered ahead: also when the
// process may not enter it any more, or its path is gone.
type netns struct {
	work   chan func() error
	result chan error
}

// enterAhead enters the network namespace at path; empty: functions run where do is
// called. Leave it.
func enterAhead(path string) (*netns, error) {
	if path == "" {
		return &netns{}, nil
	}
	n := &netns{make(chan func() error), make(chan error)}
	go func() {
		n.result <- in(path, func() error {
			n.result <- nil
			for fn := range n.work {
				n.result <- fn()
			}
			return nil
		})
	}()
	if err := <-n.result; err != nil {
		return nil, err
	}
	return n, nil
}

// do runs one function after the other, whoever calls it.
func (n *netns) do(fn func() error) error {
	if n.work == nil {
		return fn()
	}
	n.work <- fn
	return <-n.result
}

// leave is called last; it does nothing if nothing was entered.
func (n *netns) leave() {
	if n != nil && n.work != nil {
		close(n.work)
		<-n.result
	}
}
