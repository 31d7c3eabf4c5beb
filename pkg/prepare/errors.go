package prepare

import (
	"fmt"
	"strings"
)

// OptionsError is an interface that is prepared with other options. To change them
// would cut off its VM.
type OptionsError struct {
	Interface   string
	Differences []string // such as "mtu was 1450, is now 1400"
}

func (e *OptionsError) Error() string {
	return fmt.Sprintf("prepare %s: it is prepared with other options, and changing them would cut off its VM: %s; "+
		"use the same options, or stop the VM and restore first", e.Interface, strings.Join(e.Differences, ", "))
}

// UnusableError is an interface that no VM can be given, whatever the options.
type UnusableError struct {
	Interface string
	Why       error // and what can be done about it
}

func (e *UnusableError) Error() string { return e.Why.Error() }
func (e *UnusableError) Unwrap() error { return e.Why }
