// Package forward passes TCP connections to ports of a pod's loopback on to its VM, as
// kubectl port-forward needs them: it connects to 127.0.0.1 or ::1 in the pod, where
// the VM is not.
package forward

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Port is a port of the loopback, and the VM's behind it. The zero value is none.
type Port struct {
	Loopback uint16
	VM       uint16
}

// String is as [ParsePorts] reads it.
func (p Port) String() string {
	if p.Loopback == p.VM {
		return strconv.Itoa(int(p.VM))
	}
	return fmt.Sprintf("%d:%d", p.Loopback, p.VM)
}

// ParsePorts reads a list such as 22,8080:80: port 22 of the loopback is the VM's 22,
// and 8080 is its 80.
func ParsePorts(text string) ([]Port, error) {
	var ports []Port
	for word := range strings.SplitSeq(text, ",") {
		loopback, vm, both := strings.Cut(word, ":")
		if !both {
			vm = loopback
		}
		var p Port
		var err error
		if p.Loopback, err = parsePort(loopback); err == nil {
			p.VM, err = parsePort(vm)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", word, err)
		}
		ports = append(ports, p)
	}
	return ports, Validate(ports)
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("want ports of 1 to 65535, such as 22 or 8080:80")
	}
	return uint16(n), nil
}

// Validate tells which ports can't be forwarded together.
func Validate(ports []Port) error {
	sorted := slices.SortedFunc(slices.Values(ports), func(a, b Port) int { return cmp.Compare(a.Loopback, b.Loopback) })
	for i, p := range sorted {
		if p.Loopback == 0 || p.VM == 0 {
			return fmt.Errorf("%s: there is no port 0", p)
		}
		if i > 0 && sorted[i-1].Loopback == p.Loopback {
			return fmt.Errorf("port %d is forwarded twice", p.Loopback)
		}
	}
	return nil
}
