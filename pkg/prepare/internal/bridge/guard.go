package bridge

import (
	"slices"

	"github.com/google/nftables"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Family is that of what bridges pass on (NF_BR_PRI_FILTER_BRIDGED,
// linux/netfilter_bridge.h).
var Family = nft.Family{Name: "bridge", Number: nftables.TableFamilyBridge, Filter: -200, Ethernet: true, Config: "CONFIG_NF_TABLES_BRIDGE"}

// guardTable is the port guard, between the NIC's tap and the uplink. What the VM
// sends is judged before the bridge learns from it, so that forged MACs do not fill
// the bridge's table.
func guardTable(n guest.NIC, uplink string) nft.Table {
	fromTap, fromUplink := nft.InputInterface.Is(n.Tap), nft.InputInterface.Is(uplink)
	toTap, toUplink := nft.OutputInterface.Is(n.Tap), nft.OutputInterface.Is(uplink)
	var kept []nft.Rule // what bridges keep for themselves
	var judged []nft.Chain
	if !n.Addressed { // the VM may have any address, but one MAC
		judged = []nft.Chain{{Name: "prerouting", Hook: "prerouting", Rules: []nft.Rule{
			{fromTap, nft.EtherSource.Not(n.MAC), guard.Dropped(guard.FromVM, guard.ForgedMAC)},
		}}}
	} else {
		kept = []nft.Rule{
			{fromTap, guard.ToBridges, notToSpanningTree, guard.Dropped(guard.FromVM, guard.OtherProtocol)},
			{fromUplink, guard.ToBridges, notToSpanningTree, guard.Dropped(guard.ToVM, guard.OtherProtocol)},
		}
		judged = slices.Concat(guard.FromGuest(n, guard.InPlace), guard.ToGuest(n, guard.InPlace), []nft.Chain{
			{Name: "prerouting", Hook: "prerouting", Rules: append(slices.Clip(kept), nft.Rule{fromTap, nft.Jump(guard.FromGuestChain)})},
			{Name: "forward", Hook: "forward", Rules: []nft.Rule{{toTap, nft.Jump(guard.ToGuestChain)}}},
		})
	}
	// The pod's own stack neither hears nor speaks on this bridge. It would make itself
	// an address of any router's prefix (RFC 4862 section 5.5.3), the VM's among them.
	// What it does not hear has crossed, or was dropped and counted, but for the groups
	// that a bridge passes on to nobody.
	return nft.Table{Family: Family, Name: nft.Prefix + n.Interface, Purpose: "the port guard", Without: ", or do without the port guard", Chains: append(judged,
		nft.Chain{Name: "input", Hook: "input", Rules: append(slices.Clip(kept), nft.Rule{fromTap, nft.Drop}, nft.Rule{fromUplink, nft.Drop})},
		nft.Chain{Name: "output", Hook: "output", Rules: []nft.Rule{{toTap, nft.Drop}, {toUplink, nft.Drop}}})}
}

// notToSpanningTree matches all but the first of the groups of guard.ToBridges, which a
// bridge without a spanning tree passes on. What the bridge would pass on of the others
// comes to prerouting, what it would hear to input.
var notToSpanningTree = nft.EtherDestination.Not(guard.Bridges)

// ingressTable judges frames where they come in, before the bridge does. Most of what the
// guard lets pass in any case is sent on from there, which saves as much time as the guard
// takes; and the VM is answered for neighbors.
func ingressTable(n guest.NIC, uplink string) nft.Table {
	t := nft.Table{Family: nft.Netdev, Name: nft.Prefix + n.Interface, Purpose: "the table before the bridge"}
	if len(n.Answers) == 0 && n.RenamedRouter() == nil {
		t.Without = ", or do without the port guard"
	}
	add := func(name, from string, rules []nft.Rule) {
		if len(rules) > 0 {
			t.Chains = append(t.Chains, nft.Chain{Name: name, Hook: "ingress", Device: from, Rules: rules})
		}
	}
	var fromVM, toVM []nft.Rule
	if n.Guard {
		fromVM = sentOn(guard.MostFromGuest(n), uplink)
		toVM = sentOn(guard.MostToGuest(n, nft.EtherDestination.Is(n.MAC)), n.Tap)
	}
	add(guard.FromGuestChain, n.Tap, slices.Concat(fromVM, guard.Answers(n, nft.SendTo(n.Tap)), guard.RouterQuestions(n)))
	add(guard.ToGuestChain, uplink, append(toVM, guard.RouterAnswers(n)...))
	return t
}

func sentOn(most []guard.Most, link string) (out []nft.Rule) {
	for _, m := range most {
		out = append(out, append(m.Match, nft.ForwardTo(link)))
	}
	return out
}
