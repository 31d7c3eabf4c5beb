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
	return fmt.Sprintf("there is no interface %s (there are: %s)", e.Interface, strings.Join(e.There, ", "))
}
