package discover

import (
	"fmt"
	"strings"
)

// NotFoundError is an interface that was named and is not there.
type NotFoundError struct {
	Interface string
	There     []string // the names of those that there are
}

func (e *NotFoundError) Error() string {
	there := "there is none"
	if len(e.There) > 0 {
		there = "there are: " + strings.Join(e.There, ", ")
	}
	return fmt.Sprintf("there is no interface %s (%s)", e.Interface, there)
}

// IncompleteError is that the wait for the CNI ended before the pod had what was
// asked for. It wraps both what is missing, which may be a [NotFoundError], and why
// the wait ended, such as [context.DeadlineExceeded].
type IncompleteError struct {
	Missing error // such as "interface eth0 has no address"
	Cause   error
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("wait for the CNI: %v: %v", e.Missing, e.Cause)
}

// Unwrap returns both.
func (e *IncompleteError) Unwrap() []error { return []error{e.Missing, e.Cause} }
