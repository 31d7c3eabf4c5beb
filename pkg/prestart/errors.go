package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors that a caller may branch on, by [errors.Is].
var (
	// ErrNotPrepared means that the pod's network, or an interface that was named,
	// is not prepared.
	ErrNotPrepared = errors.New("the pod's network is not prepared: prepare it first, with the same state directory")
	// ErrNobodyServes means that no process answers on the control socket.
	ErrNobodyServes = errors.New("nobody serves this pod")
	// ErrNoAnswer means that there is a process that serves, which does not answer.
	ErrNoAnswer = errors.New("the server does not answer")
	// ErrSessionClosed is what one who waits for something of a [Session] gets once
	// that has ended.
	ErrSessionClosed = errors.New("the session is closed")
)

// timeoutError is that [Hook.Timeout] is over. It is [context.DeadlineExceeded].
type timeoutError time.Duration

func (e timeoutError) Error() string        { return fmt.Sprintf("timed out after %s", time.Duration(e)) }
func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }
func (e timeoutError) Timeout() bool        { return true }
