package normalize

import (
	"errors"
	"fmt"
)

// Checks are the faults found so far in what only its author can put right; nil among
// them is none.
type Checks []error

// That notes a fault unless ok.
func (c *Checks) That(ok bool, format string, args ...any) {
	if !ok {
		*c = append(*c, fmt.Errorf(format, args...))
	}
}

// Err joins the faults, what each is in before it; nil: there are none.
func (c Checks) Err(in string) error {
	var errs []error
	for _, err := range c {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", in, err))
		}
	}
	return errors.Join(errs...)
}
