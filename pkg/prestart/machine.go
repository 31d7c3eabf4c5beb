package prestart

import (
	"errors"
	"os"
)

// ErrMachine means that no network namespace was named, and that the current one is the
// machine's own, whose network the VM would get in place of a pod's.
var ErrMachine = errors.New("this is the network of the machine itself, not of a pod (hostNetwork in Kubernetes): name the pod's network namespace, /run/netns/NAME or /proc/PID/ns/net, or /proc/self/ns/net if it shall be the machine's")

// checkMachine fails in the network namespace that the machine started with, if it was not
// named. Only in that one are there the sysctls of all network devices of the machine.
func (h Hook) checkMachine() error {
	if h.Netns != "" {
		return nil
	}
	if _, err := os.Stat("/proc/sys/net/core/netdev_budget"); err == nil {
		return ErrMachine
	}
	return nil
}
