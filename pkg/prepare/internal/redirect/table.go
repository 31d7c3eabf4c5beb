package redirect

import (
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// The table has three base chains: for what comes in by the pod interface and by the tap,
// and for what leaves by the pod interface. What crosses from the VM passes the last one
// too, which knows it by its destination or its mark.
//
//	network ── fromNet ── toGuest ── toTap ──▶ VM
//	    │         └──── toPod ──▶ pod
//	    └─────◀── fromPod ◀── toNet ── fromGuest ── fromVM ── VM
const (
	fromNet = "from_net"
	fromPod = "from_pod"
	fromVM  = "from_vm"
	toVM    = "to_vm"    // of other tables: what the pod's stack sends by the tap
	toStack = "to_stack" // likewise: what it gets, from wherever

	toPod   = "to_pod"   // it is the pod's
	shared  = "shared"   // both get it
	toTap   = "to_tap"   // the VM gets it, alone or too, as the mark says
	byPort  = "by_port"  // it belongs to no connection that is known: ports decide
	forVM   = "for_vm"   // the VM alone gets it, if the guard lets it
	forPod  = "for_pod"  // the pod alone gets it
	later   = "later"    // it is a fragment that is not a packet's first
	kept    = "kept"     // the VM does not get it
	toAlias = "to_alias" // it is from the VM to the pod's alias
	toNet   = "to_net"   // it may leave
	sent    = "sent"     // it leaves
	special = "special"  // it is not for the pod's MAC
	toGroup = "to_group" // it may leave, to more than one
)

// Marks of frames inside the pod.
const (
	crossing nft.Mark = 0x564c4e // it goes from the VM to the network, or to the VM alone
	copied   nft.Mark = 0x564c4f // it goes to the VM and to the pod
	unmarked nft.Mark = 0
)

// How long a connection is known after its last segment with data, or datagram: a TCP
// connection that is idle as long as conntrack would know it, one that is about to
// open or to close as long as its peer may send something again.
const (
	openTCP  = 5 * 24 * time.Hour
	shortTCP = 2 * time.Minute
	openUDP  = 2 * time.Minute
	maxFlows = 1 << 18

	unseenTCP   = 30 * 24 * time.Hour // one of the VM's whose data nobody looks at
	maxAccepted = 1 << 16

	fragmented   = time.Second // a packet's fragments come right behind each other
	maxFragments = 1 << 16
)

// table is all that connects the tap.
func (w wiring) table() nft.Table {
	n := w.NIC
	t := nft.Table{
		Family: nft.Netdev, Name: nft.Prefix + n.Interface, Purpose: "the table that shares " + n.Interface + " with the VM",
		Without: ", or use the default datapath", Sets: w.sets(),
	}
	judge := nft.GoTo(toTap)
	if w.guarded() {
		judge = nft.GoTo(guard.ToGuestChain)
		t.Chains = append(t.Chains, guard.ToGuest(n, guard.Outcome{Pass: nft.GoTo(toTap), Drop: nft.GoTo(kept)})...)
		t.Chains = append(t.Chains, nft.Chain{Name: kept, Rules: []nft.Rule{
			{nft.FrameMark.Is(crossing), nft.Drop},
			{nft.FrameMark.Set(unmarked), nft.GoTo(toPod)},
		}})
	}
	if n.Guard {
		t.Chains = append(t.Chains, guard.FromGuest(n, guard.Outcome{Pass: nft.GoTo(toNet), Drop: nft.Drop})...)
	}
	if !w.Pod.NoEgress {
		t.Chains = append(t.Chains, nft.Chain{Name: fromPod, Hook: "egress", Device: n.Interface, Rules: w.fromPodRules()})
	}
	t.Chains = append(t.Chains,
		nft.Chain{Name: fromNet, Hook: "ingress", Device: n.Interface, Rules: w.fromNetRules()},
		nft.Chain{Name: fromVM, Hook: "ingress", Device: n.Tap, Rules: w.fromVMRules()},
		nft.Chain{Name: toPod, Rules: w.toPodRules()},
		nft.Chain{Name: toNet, Rules: w.toNetRules()},
		nft.Chain{Name: sent, Rules: w.sentRules()},
		nft.Chain{Name: toTap, Rules: []nft.Rule{
			{nft.FrameMark.Is(crossing), nft.ForwardTo(n.Tap)},
			{nft.CopyTo(n.Tap), nft.FrameMark.Set(unmarked), nft.GoTo(toPod)},
		}},
		nft.Chain{Name: shared, Rules: []nft.Rule{{nft.FrameMark.Set(copied), judge}}},
		nft.Chain{Name: special, Rules: w.specialRules()},
		nft.Chain{Name: toGroup, Rules: w.toGroupRules()},
	)
	for _, f := range families {
		t.Chains = append(t.Chains, w.familyChains(f)...)
	}
	return t
}

// sentRules have what the VM sent leave. What is to one MAC is told from the pod's by that
// it is to another than the tap's.
func (w wiring) sentRules() []nft.Rule {
	leave := nft.ForwardTo(w.NIC.Interface)
	if w.Pod.NoEgress {
		return []nft.Rule{{leave}} // nobody would take a mark off
	}
	return []nft.Rule{{nft.PacketType.Is(nft.ToOther), leave}, {nft.FrameMark.Set(crossing), leave}}
}
