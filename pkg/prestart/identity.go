package prestart

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// processOf returns the number of the process that /proc/PID/ns/net names; 0: none.
func processOf(netns string) (pid int) {
	if _, err := fmt.Sscanf(netns, "/proc/%d/ns/net", &pid); err != nil || netns != fmt.Sprintf("/proc/%d/ns/net", pid) {
		return 0
	}
	return max(pid, 0)
}

// warnOfUnknown says which of hostname and DNS the VM is not told of, because they
// are neither known nor given.
func (h Hook) warnOfUnknown(pod discover.Pod) {
	var hostname, dns bool
	for _, in := range pod.Interfaces {
		s := h.leaseOf(in.Name)
		hostname = hostname || pod.Hostname == "" && s.Hostname == ""
		dns = dns || pod.DNS.Unknown != "" && len(s.DNS) == 0
	}
	var unknown, give []string
	if hostname {
		unknown, give = append(unknown, "hostname"), append(give, "hostname")
	}
	if dns {
		unknown, give = append(unknown, "DNS"), append(give, "resolv-conf or dns")
	}
	if len(unknown) > 0 {
		h.Log.Warn("the VM does not get what could not be read of the pod", "unknown", strings.Join(unknown, " and "),
			"why", cmp.Or(pod.DNS.Unknown, "no visible process of the pod has a hostname of its own"), "remedy", "set the options "+strings.Join(give, ", and "))
	}
}
