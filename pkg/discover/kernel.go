package discover

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// hasEgressHook reports whether the kernel has nftables' egress hook of links, which
// came with Linux 5.16.
func hasEgressHook() bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return true
	}
	return egressSince(unix.ByteSliceToString(name.Release[:]))
}

// egressSince reports whether a kernel of that release has it. What can't be read has:
// who needs it is told by the kernel.
func egressSince(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return true
	}
	return major > 5 || major == 5 && minor >= 16
}

// localPorts are those of the network namespace of the calling thread (ip(7),
// ip_local_port_range); zero: not known.
func localPorts() (ports [2]uint16) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		_, err = fmt.Sscan(string(b), &ports[0], &ports[1])
	}
	if err != nil || ports[0] > ports[1] {
		return [2]uint16{}
	}
	return ports
}
