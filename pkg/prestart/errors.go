package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
)

// Errors that a caller may branch on, by [errors.Is].
var (
	// ErrNotPrepared means that the pod's network, or an interface that was named,
	// is not prepared.
	ErrNotPrepared = errors.New("the pod's network is not prepared")
	// ErrSessionClosed is what one who waits for something of a [Session] gets once
	// that has ended.
	ErrSessionClosed = errors.New("the session is closed")
	// ErrPlugged means that an interface is the session's already.
	ErrPlugged = errors.New("it is plugged in already")
	// ErrNoHotplug means that a session plugs nothing for who asks on its socket.
	ErrNoHotplug = errors.New("the program that serves the pod was not started for hotplug, and has no privileges left for it")
)

// TimeoutError is that [Hook.Timeout] is over. It is [context.DeadlineExceeded]. Its fields:
//
//	After time.Duration
//	Cause error // of the end of the context; nil: there is none but the time
type TimeoutError = control.TimeoutError

// StartTimeoutError is that libvirt took longer than [Domain.StartTimeout] to answer and to
// start the domain. It is [context.DeadlineExceeded].
type StartTimeoutError struct {
	After time.Duration
}

func (e *StartTimeoutError) Error() string { return fmt.Sprintf("no answer within %s", e.After) }

// Is makes it a [context.DeadlineExceeded].
func (e *StartTimeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// ServedError is that another session serves the pod already, in whatever process. Its field:
//
//	PID int // the process; 0: it is in another container, which hides its number
type ServedError = statedir.ServedError

// ServeError is that one of the VM's NICs can't be served, or is not served any more.
type ServeError struct {
	Interface string
	Err       error
}

func (e *ServeError) Error() string { return fmt.Sprintf("serve %s: %v", e.Interface, e.Err) }
func (e *ServeError) Unwrap() error { return e.Err }

// CheckError is that a guest would not get its network, as [Hook.Run] found. With
// [Hook.SkipCheck] it does not look.
type CheckError struct {
	Interface string
	Err       error
}

func (e *CheckError) Error() string { return fmt.Sprintf("check %s: %v", e.Interface, e.Err) }
func (e *CheckError) Unwrap() error { return e.Err }
