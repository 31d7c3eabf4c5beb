package redirect

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// Before Linux 5.16 nothing can look at what leaves by a link. The pod's own
// connections are not known then: what is for one of the ports that its kernel takes
// for them is the pod's.

// guestPorts are the first of those that guests take for their connections: Linux
// from here on, others from 49152 on (RFC 6335).
const guestPorts = 32768

// podPorts are those that stay the pod's. Its range for connections is not among them
// if guests use the same: the VM would have no connection at all. Plan.Warnings
// tells of that.
func (w wiring) podPorts() guest.Ports {
	p, local := w.PodPorts, w.Pod.LocalPorts
	if w.Pod.NoEgress && local[0] > 0 && local[1] < guestPorts {
		r := guest.PortRange{First: local[0], Last: local[1]}
		p.TCP, p.UDP = append(slices.Clip(p.TCP), r), append(slices.Clip(p.UDP), r)
	}
	return p
}
