package redirect

import (
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

func hasFlag(f nft.Flags) nft.Part { return nft.TCPFlags.Masked(f).Is(f) }

// noting are rules that have a flow's set know what one side sends, and then do what is
// to be done with it. A reset ends what there is, but its peer may not have got it, and a
// stray one is no connection. full is for what there is no room to note, if
// that is not to be treated as all else.
func (f family) noting(s nft.Set, then nft.Part, full ...nft.Part) (out []nft.Rule) {
	note := func(put func(nft.Set, time.Duration, ...nft.Operand) nft.Part, timeout time.Duration, parts ...nft.Part) {
		out = append(out, append(append(nft.Rule{f.is}, parts...), put(s, timeout, f.outgoing()...), then))
	}
	note(nft.UpdateSet, shortTCP, tcp, hasFlag(nft.RST), nft.InSet(s, f.outgoing()...))
	out = append(out, nft.Rule{f.is, tcp, hasFlag(nft.RST), then})
	note(nft.UpdateSet, shortTCP, tcp, hasFlag(nft.FIN))
	note(nft.UpdateSet, shortTCP, tcp, hasFlag(nft.SYN))
	note(nft.UpdateSet, openTCP, tcp, hasFlag(nft.PSH))
	note(nft.AddToSet, openTCP, tcp) // a bare acknowledgment says no more than that there is a connection: the last one comes behind its end
	note(nft.UpdateSet, openUDP, udp)
	for _, part := range full {
		out = append(out, nft.Rule{f.is, tcp, part}, nft.Rule{f.is, udp, part})
	}
	return append(out, nft.Rule{then})
}

// handshaking are rules that have the VM's sets know by what opens and ends TCP connections
// which of them are the VM's, whatever its ports are. All else that the VM sends need not be
// looked at for that, where the VM gets what is for any port but some.
func (f family) handshaking() (out []nft.Rule) {
	note := func(s nft.Set, timeout time.Duration, parts ...nft.Part) {
		out = append(out, slices.Concat(nft.Rule{f.is, tcp}, parts, nft.Rule{nft.UpdateSet(s, timeout, f.outgoing()...)}))
	}
	note(f.flows(vms), shortTCP, nft.TCPOpens)
	note(f.accepted(), unseenTCP, nft.TCPFlags.Masked(nft.SYN|nft.ACK).Is(nft.SYN|nft.ACK))
	for _, s := range []nft.Set{f.flows(vms), f.accepted()} {
		note(s, shortTCP, nft.TCPFlags.Masked(nft.FIN|nft.RST).Not(0), nft.InSet(s, f.outgoing()...))
	}
	return out
}

// answered are rules for a flow's answers: they keep it known, as noting does. open is for
// how long if the peer has accepted; udps tells whether the set has flows of UDP, too.
func (f family) answered(s nft.Set, open time.Duration, udps bool, then nft.Rule) (out []nft.Rule) {
	note := func(timeout time.Duration, parts ...nft.Part) {
		out = append(out, slices.Concat(nft.Rule{f.is}, parts, nft.Rule{nft.UpdateSet(s, timeout, f.incoming()...)}, then))
	}
	note(shortTCP, tcp, hasFlag(nft.FIN))
	note(shortTCP, tcp, hasFlag(nft.RST))
	note(open, tcp, hasFlag(nft.SYN))
	note(openTCP, tcp, hasFlag(nft.PSH))
	if udps {
		note(openUDP, udp)
	}
	return append(out, then)
}

// toPodsPorts are rules for TCP to the pod's listed ports, but for connections that the VM has
// had there from before: most of what the pod gets needs no other look at what is known.
func (w wiring) toPodsPorts(f family, then nft.Rule) (rules []nft.Rule) {
	for _, p := range w.ports() {
		if p.protocol != nft.TCP || !w.VMPorts.IsZero() {
			continue
		}
		for _, match := range p.in(nft.DestinationPort) {
			rules = append(rules, slices.Concat(nft.Rule{f.is, nft.L4Protocol.Is(p.protocol), match}, w.notVMs(f, p.protocol, f.incoming()), then))
		}
	}
	return rules
}

// notVMs match what is of no connection of TCP that is noted to be the VM's.
func (w wiring) notVMs(f family, p nft.Protocol, flow []nft.Operand) (rule nft.Rule) {
	if p != nft.TCP {
		return nil
	}
	for _, s := range w.vmSets(f) {
		rule = append(rule, nft.NotInSet(s, flow...))
	}
	return rule
}

// vmAnswers are rules that give the VM the answers to its connections, and their chains.
func (w wiring) vmAnswers(f family, then nft.Rule) (rules []nft.Rule, chains []nft.Chain) {
	for _, s := range w.vmSets(f) {
		match := nft.Rule{f.is}
		udps := s.Name == f.flows(vms).Name && !w.VMPorts.IsZero()
		if !udps { // of the VM's datagrams nothing is noted: what was before is not to take the pod's
			match = append(match, tcp)
		}
		answer := strings.TrimSuffix(s.Name, f.suffix) + "_answer" + f.suffix
		rules = append(rules, append(match, nft.InSet(s, f.incoming()...), nft.GoTo(answer)))
		chains = append(chains, nft.Chain{Name: answer, Rules: f.answered(s, unseenTCP, udps, then)})
	}
	return rules, chains
}
