package redirect

import (
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// stackTables are for packets in the pod's own stack: what comes in by whatever link,
// and what leaves by the tap. An egress hook of the tap could look at the latter as well,
// but would take the time of each frame that is handed on to the VM.
func (w wiring) stackTables() (out []nft.Table) {
	for i, f := range []nft.Family{nft.IPv4Family, nft.IPv6Family} {
		t := nft.Table{
			Family: f, Name: nft.Prefix + w.NIC.Interface, Without: ", or use the default datapath",
			Purpose: "the table that keeps the aliases of " + w.NIC.Interface + " to the pod and the VM",
		}
		if a, has := families[i].alias(w.NIC); has {
			t.Chains = append(t.Chains, nft.Chain{Name: toStack, Hook: "prerouting", Early: true, Rules: w.toStackRules(families[i], a)})
		}
		t.Chains = append(t.Chains, nft.Chain{Name: toVM, Hook: "postrouting", Late: true, Rules: w.toVMRules(families[i])})
		out = append(out, t)
	}
	return out
}

// toStackRules keep the pair of aliases to the pod and the VM: the pod's is one of its
// addresses, which the kernel takes packets for by any link, and to the VM's it would
// forward them. They come before the pod's own tables, which may give a packet another
// address, as those of a service mesh do.
func (w wiring) toStackRules(f family, a guest.Alias) (rules []nft.Rule) {
	mask := pairMask(a.VM)
	pair := netip.PrefixFrom(a.VM, pairBits(a.VM)).Masked().Addr()
	for _, field := range []nft.Field[netip.Addr]{f.destination, f.source} {
		rules = append(rules, nft.Rule{field.Masked(mask).Is(pair), nft.InputInterface.Not(w.NIC.Tap), nft.InputInterface.Not("lo"), nft.Drop})
	}
	return rules
}

// toVMRules are for what the pod sends by the tap: that for the VM's alias gets to the
// VM, and nothing else does.
func (w wiring) toVMRules(f family) (rules []nft.Rule) {
	byTap := nft.OutputInterface.Is(w.NIC.Tap)
	if a, ok := f.alias(w.NIC); ok {
		for _, r := range f.requote(f.sourceInHeader, a.VM, f.own(w.NIC), byTap, f.source.Is(a.Pod), f.destination.Is(a.VM)) {
			rules = append(rules, r[1:]) // all is of the family here
		}
		rules = append(rules, nft.Rule{byTap, f.source.Is(a.Pod), f.destination.Is(a.VM), f.destination.Set(f.own(w.NIC)), nft.Accept})
	}
	return append(rules, nft.Rule{byTap, nft.Drop})
}
