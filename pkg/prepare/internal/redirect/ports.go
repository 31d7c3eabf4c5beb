package redirect

import (
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// sets are the listed ports and the flows.
func (w wiring) sets() (out []nft.Set) {
	for _, p := range w.ports() {
		if !p.few() {
			out = append(out, p.Set)
		}
	}
	for _, f := range families {
		if !f.has(w.NIC) {
			continue
		}
		if !w.Pod.NoEgress {
			out = append(out, w.podFlows(f))
		}
		out = append(out, w.vmSets(f)...)
		out = append(out, f.fragments(pods), f.fragments(vms))
	}
	return out
}

// podFlows are the pod's connections: those that it has when it is prepared are known,
// though their peers may speak first.
func (w wiring) podFlows(f family) nft.Set {
	s := f.flows(pods)
	s.Connected.Timeout = openUDP
	for _, a := range w.Pod.Addresses {
		if own := a.Prefix.Addr(); own.Is4() == f.is4() {
			s.Connected.From = append(s.Connected.From, own)
		}
	}
	return s
}

// vmSets are of the VM's connections.
func (w wiring) vmSets(f family) []nft.Set {
	if !w.NIC.Addressed { // there are no ports
		return nil
	}
	return []nft.Set{f.flows(vms), f.accepted()}
}

// forgotten take an incoming frame's out of them.
func (w wiring) forgotten(f family) (parts []nft.Part) {
	for _, s := range w.vmSets(f) {
		parts = append(parts, nft.DeleteFromSet(s, f.incoming()...))
	}
	return parts
}

// portSet are ports of a protocol.
type portSet struct {
	nft.Set
	protocol nft.Protocol
}

// few tells whether the ranges are so few that to compare each is faster than to look
// a port up in the set.
func (p portSet) few() bool { return len(p.Ranges) <= 3 }

// in are what matches a listed port in a field, each some of them.
func (p portSet) in(port nft.Field[uint16]) (out []nft.Part) {
	if !p.few() {
		return []nft.Part{nft.InSet(p.Set, port)}
	}
	for _, r := range p.Ranges {
		if r.From == r.To {
			out = append(out, port.Is(r.From))
		} else {
			out = append(out, port.In(r.From, r.To))
		}
	}
	return out
}

// notIn matches all other ports.
func (p portSet) notIn(port nft.Field[uint16]) (out nft.Rule) {
	if !p.few() {
		return nft.Rule{nft.NotInSet(p.Set, port)}
	}
	for _, r := range p.Ranges {
		if r.From == r.To {
			out = append(out, port.Not(r.From))
		} else {
			out = append(out, port.NotIn(r.From, r.To))
		}
	}
	return out
}

// ports are the sets of listed ports.
func (w wiring) ports() (out []portSet) {
	listed, whose := w.podPorts(), pods
	if !w.VMPorts.IsZero() {
		listed, whose = w.VMPorts, vms
	}
	add := func(name string, protocol nft.Protocol, ranges []guest.PortRange) {
		s := nft.Set{Name: whose + name, Key: []nft.Datatype{nft.InetService}}
		for _, r := range ranges {
			s.Ranges = append(s.Ranges, nft.Range{From: r.First, To: r.Last})
		}
		if len(ranges) > 0 {
			out = append(out, portSet{s, protocol})
		}
	}
	add("_tcp", nft.TCP, listed.TCP)
	add("_udp", nft.UDP, listed.UDP)
	return out
}

// listed match the listed ports in a field.
func (w wiring) listed(port nft.Field[uint16], then ...nft.Part) (out []nft.Rule) {
	for _, p := range w.ports() {
		for _, match := range p.in(port) {
			out = append(out, append(nft.Rule{nft.L4Protocol.Is(p.protocol), match}, then...))
		}
	}
	return out
}

// answers match what the pod, or the VM, sends from a listed port: it opened no
// connection by that.
func (w wiring) answers(ofPod bool, then nft.Part) []nft.Rule {
	if ofPod != w.VMPorts.IsZero() {
		return nil
	}
	return w.listed(nft.SourcePort, then)
}
