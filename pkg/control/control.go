// Package control is how others ask the process that serves a pod: HTTP with JSON
// on a socket in the state directory.
//
//	GET /v1/status                    its [Status]
//	GET /v1/wait?for=network|lease    the same, once it is so
//
// What else a server does on request, see [Server.Post], is not of this package.
//
// Each answer has the network namespace that is served in a header.
package control

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// SocketName is the socket's name in the state directory.
const SocketName = "control.sock"

// What [Client.Wait] can wait for.
const (
	ForNetwork = "network" // the network is prepared, all there, and served: a guest could boot
	ForLease   = "lease"   // a guest that is there has its addresses
)

// Errors that a caller may branch on, by [errors.Is].
var (
	// ErrNobodyServes means that no process answers on the control socket.
	ErrNobodyServes = errors.New("nobody serves this pod")
	// ErrNoAnswer means that there is a process that serves, which does not answer.
	ErrNoAnswer = errors.New("the server does not answer")
)

// TimeoutError is that a wait is over its time. It is [context.DeadlineExceeded].
type TimeoutError struct {
	After time.Duration
	Cause error // of the end of the context; nil: there is none but the time
}

func (e *TimeoutError) Error() string { return fmt.Sprintf("timed out after %s", e.After) }
func (e *TimeoutError) Unwrap() error { return e.Cause }

// Is tells that e is [context.DeadlineExceeded].
func (e *TimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// namespaceHeader is the header of an answer that says which network namespace it
// is about.
const namespaceHeader = "Network-Namespace"

// headerOf is the namespace as the header has it, as far as who asks from outside
// can know it.
func headerOf(ns statedir.Namespace) string { return fmt.Sprintf("%s %d", ns.BootID, ns.Inode) }

// checkCondition refuses what nobody can wait for.
func checkCondition(condition string) error {
	if condition != ForNetwork && condition != ForLease {
		return fmt.Errorf("wait for %q: want %s or %s", condition, ForNetwork, ForLease)
	}
	return nil
}
