package prestart

import (
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// missing returns the names of the links that are not there.
func missing(differences []prepare.Difference) []string {
	var names []string
	for _, d := range differences {
		if d.Is == prepare.Missing {
			names = append(names, d.What)
		}
	}
	return names
}

// NotReady says in one line why a guest could not boot or would not reach its
// network, and the way out; empty if it would.
func (s SessionStatus) NotReady() string {
	if len(s.Differences) == 0 && s.Ready {
		return ""
	}
	if len(s.Differences) == 0 {
		return "the network is not ready yet"
	}
	var words, remedies []string
	for _, d := range s.Differences {
		words = append(words, d.Interface+": "+d.String())
		if !slices.Contains(remedies, d.Remedy) {
			remedies = append(remedies, d.Remedy)
		}
	}
	return "the VM's network is not as planned: " + strings.Join(words, ", ") + ": " + strings.Join(remedies, "; ")
}
