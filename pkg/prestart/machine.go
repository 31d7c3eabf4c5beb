package prestart

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// ErrMachine means that no network namespace was named, and that the current one is the
// machine's own, whose network the VM would get in place of a pod's.
var ErrMachine = errors.New("this is the network of the machine itself, not of a pod: name the pod's network namespace, /run/netns/NAME or /proc/PID/ns/net, or /proc/self/ns/net if it shall be the machine's")

// What a machine starts with: the inode of its PID namespace, and from Linux 6.18 on that of
// its network namespace.
const (
	firstPIDs    = 0xEFFFFFFC // PID_NS_INIT_INO
	firstNetwork = 0xEFFFFFF9 // NET_NS_INIT_INO
)

// checkMachine fails outside of containers in the network of the machine's first process,
// if that was not named. Within a container the first process is the container's.
func (h Hook) checkMachine() error {
	if h.Netns != "" {
		return nil
	}
	var pids unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &pids); err == nil && pids.Ino != firstPIDs {
		return nil
	}
	first, err := statedir.Of("/proc/1/ns/net") // not every root may look there
	if h.namespace.Inode == firstNetwork || err == nil && first.Same(h.namespace) {
		return ErrMachine
	}
	return nil
}
