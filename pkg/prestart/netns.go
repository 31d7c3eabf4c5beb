package prestart

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

var errNotNetns = errors.New("it is none; that of a process is /proc/PID/ns/net")

// in runs fn in the network namespace at path, on a thread of its own; an
// empty path is the calling thread's. Goroutines that fn starts are elsewhere:
// whatever must be in the namespace fn opens itself.
func in(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	target, err := ns.GetNS(path)
	if notNS := (ns.NSPathNotNSErr{}); errors.As(err, &notNS) {
		err = errNotNetns
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
		err = errNotNetns
	}
	return fmt.Errorf("enter network namespace %s: %w", path, err)
}
