package redirect

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Most frames pass by one rule each way, without a chain that is gone to, and without a
// mark, which take the kernel as long as some comparisons: TCP and UDP between another
// MAC and the VM, that the guard lets pass in any case, and that is neither for the pod nor
// of one of its connections. All else is judged by the rules behind, and so is what opens and
// ends a TCP connection, which they note.

// mostToVM give the VM what comes from the network.
func (w wiring) mostToVM() (out []nft.Rule) {
	for _, m := range guard.MostToGuest(w.NIC, nft.PacketType.Is(nft.ToHost)) {
		f := familyOf(m)
		match := append(m.Match, f.destination.Is(f.own(w.NIC)))
		if m.Is4 {
			match = append(match, nft.IPWhole)
		}
		if m.Protocol == nft.TCP {
			match = append(match, nft.TCPUnderWay)
		}
		for _, ports := range w.portsOfVM(m.Protocol, nft.DestinationPort) {
			out = append(out, slices.Concat(match, ports, w.notPods(f, f.incoming()), nft.Rule{nft.ForwardTo(w.NIC.Tap)}))
		}
	}
	return out
}

// mostFromVM let go what the VM sends to the network.
func (w wiring) mostFromVM() (out []nft.Rule) {
	for _, m := range guard.MostFromGuest(w.NIC) {
		f := familyOf(m)
		if m.Protocol == nft.TCP {
			m.Match = append(m.Match, nft.TCPUnderWay)
		}
		for _, ports := range w.portsOfVM(m.Protocol, nft.SourcePort) {
			rule := slices.Concat(m.Match, ports, w.notPods(f, f.outgoing()))
			if a, ok := f.alias(w.NIC); ok {
				rule = append(rule, f.destination.Not(a.Pod))
			}
			out = append(out, append(rule, nft.ForwardTo(w.NIC.Interface)))
		}
	}
	return out
}

func familyOf(m guard.Most) family {
	return families[slices.IndexFunc(families, func(f family) bool { return f.is4() == m.Is4 })]
}

// portsOfVM match the VM's ports in a field, each some of them: those that are named, or
// all that are not the pod's.
func (w wiring) portsOfVM(protocol nft.Protocol, port nft.Field[uint16]) (out []nft.Rule) {
	var others nft.Rule
	for _, p := range w.ports() {
		if p.protocol != protocol {
			continue
		}
		others = append(others, p.notIn(port)...)
		for _, some := range p.in(port) {
			out = append(out, nft.Rule{some})
		}
	}
	if w.VMPorts.IsZero() {
		return []nft.Rule{others}
	}
	return out
}

// notPods matches what is of no connection of the pod's.
func (w wiring) notPods(f family, flow []nft.Operand) nft.Rule {
	if w.Pod.NoEgress {
		return nil
	}
	return nft.Rule{nft.NotInSet(f.flows(pods), flow...)}
}
