package redirect

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Before Linux 5.16 nothing can look at what leaves by a link. The pod's own
// connections are not known then: what is for one of the ports that its kernel takes
// for them is the pod's. What it sends by the tap is looked at in its own stack.

// guestPorts are the first of those that guests take for their connections: Linux
// from here on, others from 49152 on (RFC 6335).
const guestPorts = 32768

// podPorts are those that stay the pod's. Its range for connections is not among them
// if guests use the same: the VM would have no connection at all. Plan.Warnings
// tells of that.
func (w wiring) podPorts() guest.Ports {
	p, local := w.PodPorts, w.pod.LocalPorts
	if w.pod.NoEgress && local[0] > 0 && local[1] < guestPorts {
		r := guest.PortRange{First: local[0], Last: local[1]}
		p.TCP, p.UDP = append(slices.Clip(p.TCP), r), append(slices.Clip(p.UDP), r)
	}
	return p
}

// stackTables are for what the pod sends by the tap: that for the VM's alias gets to the
// VM, and nothing else does.
func (w wiring) stackTables() (out []nft.Table) {
	for i, f := range []nft.Family{nft.IPv4Family, nft.IPv6Family} {
		byTap, is := nft.OutputInterface.Is(w.NIC.Tap), families[i]
		var rules []nft.Rule
		if a, ok := is.alias(w.NIC); ok {
			for _, r := range is.requote(is.sourceInHeader, a.VM, is.own(w.NIC), byTap, is.source.Is(a.Pod), is.destination.Is(a.VM)) {
				rules = append(rules, r[1:]) // all is of the family here
			}
			rules = append(rules, nft.Rule{byTap, is.source.Is(a.Pod), is.destination.Is(a.VM), is.destination.Set(is.own(w.NIC)), nft.Accept})
		}
		out = append(out, nft.Table{
			Family: f, Name: nft.Prefix + w.NIC.Interface, Purpose: "the table for what the pod sends to the VM", Without: ", or use the datapath bridge",
			Chains: []nft.Chain{{Name: toVM, Hook: "postrouting", Rules: append(rules, nft.Rule{byTap, nft.Drop})}},
		})
	}
	return out
}
