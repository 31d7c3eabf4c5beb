package redirect

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// fromNetRules are for what comes from the network: they tell what is to the VM's
// addresses from what is the pod's alone, and from what both may need. What has the tag
// of a VLAN is to the VM's addresses too: the pod takes VLAN 0's for its own (IEEE
// 802.1Q's priority tag), and would refuse what is for the VM.
func (w wiring) fromNetRules() []nft.Rule {
	n := w.NIC
	rules := slices.Concat(w.mostToVM(), guard.RouterAnswers(n), []nft.Rule{{nft.PacketType.Not(nft.ToHost), nft.GoTo(special)}})
	for _, f := range families {
		is := f.is
		if !n.Addressed {
			is = f.untagged
		}
		for _, match := range f.ofVM(n, f.destination) {
			rules = append(rules, slices.Concat(nft.Rule{is}, match, nft.Rule{nft.GoTo(fromNet + f.suffix)}))
		}
	}
	// Other addresses are of the pod alone.
	return append(rules, nft.Rule{families[0].untagged, nft.GoTo(toPod)}, nft.Rule{families[1].untagged, nft.GoTo(toPod)}, nft.Rule{nft.GoTo(shared)})
}

// linkLocals are all link-local addresses in use (RFC 4291 section 2.5.6), of which
// the VM chooses its own.
var linkLocals = netip.MustParsePrefix("fe80::/64")

// ofVM match what has one of the VM's addresses in a field: all, if it may have any.
func (f family) ofVM(n guest.NIC, field nft.Field[netip.Addr]) (out []nft.Rule) {
	switch {
	case !f.has(n):
		return nil
	case !n.Addressed:
		return []nft.Rule{{}}
	}
	for _, a := range f.addresses(n) {
		out = append(out, nft.Rule{field.Is(a)})
	}
	if !f.is4() {
		out = append(out, nft.Rule{nft.Within(field, linkLocals)})
	}
	return out
}

// familyChains are those of one family: for what comes from the network to an address
// that both have, for answers, and for what the pod sends.
func (w wiring) familyChains(f family) []nft.Chain {
	if !f.has(w.NIC) {
		return nil
	}
	toVM := nft.GoTo(forVM + f.suffix)
	pod := nft.Rule{nft.GoTo(forPod + f.suffix)}
	// An error or an echo reply has no ports of its own. What the pod has opened is its, from
	// whatever port.
	rules := []nft.Rule{{f.is, f.laterFragment, nft.GoTo(later + f.suffix)}}
	rules = append(rules, w.toPodsPorts(f, pod)...)
	// Who opens a connection answers none: else one side could have the other's peers, by
	// sending from its port to theirs.
	opening := nft.Rule{f.is, tcp, nft.TCPOpens}
	if w.VMPorts.IsZero() { // the pod's answers, from its ports, are not noted: what the VM has noted must not be before them
		opening = append(opening, w.forgotten(f)...)
	}
	rules = append(rules, append(opening, nft.GoTo(byPort+f.suffix)))
	chains := []nft.Chain{
		{Name: forVM + f.suffix, Rules: w.toVMAlone(f)},
		{Name: forPod + f.suffix, Rules: []nft.Rule{f.fragmenting(pods), {nft.GoTo(toPod)}}},
		{Name: later + f.suffix, Rules: f.ofFragments(w.atVM(), nft.Rule{nft.GoTo(toPod)})},
	}
	if !w.Pod.NoEgress {
		var full []nft.Part // where the VM's ports are named, the pod gets the answers all the same
		if w.VMPorts.IsZero() {
			full = []nft.Part{guard.Kept(guard.FromPod, guard.TooManyConnections, nft.Accept)}
		}
		chains = append(chains,
			nft.Chain{Name: pods + "_answer" + f.suffix, Rules: f.answered(f.flows(pods), openTCP, true, pod)},
			nft.Chain{Name: fromPod + f.suffix, Rules: slices.Concat(w.answers(true, nft.Accept), []nft.Rule{{f.is, f.laterFragment, nft.Accept}}, f.noting(f.flows(pods), nft.Accept, full...))})
		rules = append(rules, nft.Rule{f.is, nft.InSet(f.flows(pods), f.incoming()...), nft.GoTo(pods + "_answer" + f.suffix)})
	}
	known, ofKnown := w.vmAnswers(f, nft.Rule{toVM})
	chains, rules = append(chains, ofKnown...), append(rules, known...)
	opened := []nft.Rule{
		slices.Concat(nft.Rule{f.is}, f.notEchoRequest, f.fragmenting(vms, pods)[1:]),
		slices.Concat(nft.Rule{f.is}, f.notEchoRequest, nft.Rule{nft.GoTo(shared)}),
	}
	if w.VMPorts.IsZero() {
		opened = append(slices.Concat(w.listed(nft.DestinationPort, pod...), opened), nft.Rule{toVM})
	} else {
		opened = append(slices.Concat(w.listed(nft.DestinationPort, toVM), opened), pod)
	}
	chains = append(chains, nft.Chain{Name: byPort + f.suffix, Rules: opened})
	rules = append(rules, nft.Rule{nft.GoTo(byPort + f.suffix)})
	if a, ok := f.alias(w.NIC); ok {
		chains = append(chains, nft.Chain{Name: toAlias + f.suffix, Rules: w.toAliasRules(f, a)})
	}
	return append(chains,
		nft.Chain{Name: fromNet + f.suffix, Rules: rules},
		nft.Chain{Name: toNet + f.suffix, Rules: w.toNetFamilyRules(f)})
}

// toVMAlone are rules for what the VM alone gets, if the guard lets it. What a DHCP server
// sends is the pod's: whoever keeps the lease of its address has it from there, and the VM
// from its tap.
func (w wiring) toVMAlone(f family) (rules []nft.Rule) {
	ofServer := nft.GoTo(forPod + f.suffix)
	if w.guarded() {
		ofServer = guard.Kept(guard.ToVM, guard.DHCPServer, ofServer)
	}
	if w.NIC.Addressed {
		rules = []nft.Rule{slices.Concat(nft.Rule{f.is}, f.dhcpServer, nft.Rule{ofServer})}
	}
	return append(rules, f.fragmenting(vms), w.atVM())
}

// atVM gives the VM what has no ports to be looked at, or has been.
func (w wiring) atVM() nft.Rule {
	if w.guarded() {
		return nft.Rule{nft.FrameMark.Set(crossing), nft.GoTo(guard.ToGuestChain)}
	}
	return nft.Rule{nft.ForwardTo(w.NIC.Tap)}
}

// fromPodRules are for what leaves by the pod interface: of the pod's it is noted.
func (w wiring) fromPodRules() []nft.Rule {
	rules := []nft.Rule{
		{nft.PacketType.Is(nft.ToOther), nft.Accept}, // the VM's: whom it sends to is looked at where it comes in
		{nft.FrameMark.Is(crossing), nft.FrameMark.Set(unmarked), nft.Accept},
	}
	for _, f := range families {
		if f.has(w.NIC) {
			rules = append(rules, nft.Rule{f.is, nft.GoTo(fromPod + f.suffix)})
		}
	}
	return rules
}

// toPodRules let a frame of the network's go to the pod's own stack, but for what the VM
// sent to itself: a network may send that back, too. Nobody is told that the pod has its
// alias; toStackRules keep off what is sent to that. What a node translates and sends back, as to a
// Service of the pod itself, has the VM's MAC and another address.
// The kernel takes a second tag off behind VLAN 0's, when no hook sees the frame any
// more.
func (w wiring) toPodRules() (rules []nft.Rule) {
	for _, f := range families {
		rules = append(rules, w.ownFrames(f)...)
		if a, ok := f.alias(w.NIC); ok && f.is4() {
			rules = append(rules, nft.Rule{nft.EtherProtocol.Is(nft.ARP), nft.ARPTargetIP.Is(a.Pod), nft.Drop})
		}
	}
	for _, second := range []nft.Type{nft.VLAN, nft.ServiceVLAN} {
		rules = append(rules, nft.Rule{nft.EtherProtocol.Is(second), nft.VLANID.Is(0), nft.Drop})
	}
	return append(rules, nft.Rule{nft.Accept})
}

// ownFrames drop what has a source of the VM's. What has come back from a router has that
// one's MAC, and IPv6 takes it.
func (w wiring) ownFrames(f family) (rules []nft.Rule) {
	own := nft.EtherSource.Is(w.NIC.MAC)
	switch {
	case !f.has(w.NIC):
		return nil
	case !w.NIC.Addressed:
		return []nft.Rule{{own, f.is, nft.Drop}}
	}
	for _, a := range f.addresses(w.NIC) {
		rules = append(rules, nft.Rule{f.is, f.source.Is(a), nft.Drop})
	}
	if !f.is4() {
		rules = append(rules, nft.Rule{own, f.is, nft.Within(f.source, linkLocals), nft.Drop})
	}
	return rules
}

// fromVMRules are for what the VM sends: to the pod's alias, or to the network. It
// never gets to the pod by another address.
func (w wiring) fromVMRules() []nft.Rule {
	n := w.NIC
	rules := slices.Concat(w.mostFromVM(), guard.Answers(n, nft.ForwardTo(n.Tap)), guard.RouterQuestions(n))
	for _, f := range families {
		if a, ok := f.alias(n); ok {
			rules = append(rules, nft.Rule{f.is, f.destination.Is(a.Pod), nft.GoTo(toAlias + f.suffix)})
		}
	}
	if n.Guard {
		rules = append(rules, nft.Rule{nft.Jump(guard.FromGuestChain)})
	}
	return append(rules, nft.Rule{nft.GoTo(toNet)})
}

// toAliasRules are for what the VM sends to the pod's alias, which is the VM's alias's
// then.
func (w wiring) toAliasRules(f family, a guest.Alias) []nft.Rule {
	n := w.NIC
	return append(f.requote(f.destinationInHeader, f.own(n), a.VM, nft.EtherSource.Is(n.MAC), f.source.Is(f.own(n))),
		nft.Rule{
			nft.EtherSource.Is(n.MAC), f.untagged, f.source.Is(f.own(n)),
			f.source.Set(a.VM), nft.EtherDestination.Set(n.TapMAC), nft.PacketType.Set(nft.ToHost), nft.Accept,
		},
		nft.Rule{nft.Drop})
}

// paused matches pause frames, which are for a cable's two ends alone.
var paused = nft.EtherDestination.Is(mac.Addr{0x01, 0x80, 0xc2, 0, 0, 1})

// guarded reports whether the guard tells what is whose.
func (w wiring) guarded() bool { return w.NIC.Guard && w.NIC.Addressed }

// specialRules are for what is not for the pod's MAC: for whatever is on the pod
// interface, as a macvlan, or for more than one.
func (w wiring) specialRules() []nft.Rule {
	rules := []nft.Rule{
		{nft.PacketType.Is(nft.ToOther), nft.Accept},
		// Networks that send the VM's broadcasts back: neither is to hear them.
		{nft.EtherSource.Is(w.NIC.MAC), guard.Dropped(guard.ToVM, guard.OwnMAC)},
	}
	if w.guarded() {
		rules = append(rules, nft.Rule{guard.ToBridges, guard.Kept(guard.ToVM, guard.OtherProtocol, nft.GoTo(toPod))})
	} else {
		rules = append(rules, nft.Rule{paused, nft.Accept})
	}
	return append(rules, nft.Rule{nft.GoTo(shared)})
}

// toGroupRules are for what the VM sends to more than one.
func (w wiring) toGroupRules() []nft.Rule {
	rules := []nft.Rule{{paused, nft.Drop}}
	if w.guarded() {
		rules = []nft.Rule{{guard.ToBridges, guard.Dropped(guard.FromVM, guard.OtherProtocol)}}
	}
	return append(rules, nft.Rule{nft.GoTo(sent)})
}

// toNetRules are for what the VM may send to the network. What goes to a group is
// answered to neither's port alone.
func (w wiring) toNetRules() []nft.Rule {
	rules := []nft.Rule{{guard.ToGroup, nft.GoTo(toGroup)}}
	for _, f := range families {
		if f.has(w.NIC) {
			rules = append(rules, nft.Rule{f.is, nft.GoTo(toNet + f.suffix)})
		}
	}
	return append(rules, nft.Rule{nft.GoTo(sent)})
}

// toNetFamilyRules keep off what would be answered to the pod, and note the VM's connections:
// all that it sends by them where it does not get what is for no listed port.
func (w wiring) toNetFamilyRules(f family) (rules []nft.Rule) {
	if w.VMPorts.IsZero() {
		for _, p := range w.ports() {
			for _, match := range p.in(nft.SourcePort) {
				rules = append(rules, slices.Concat(nft.Rule{f.is, nft.L4Protocol.Is(p.protocol), match}, w.notVMs(f, p.protocol, f.outgoing()),
					nft.Rule{guard.Dropped(guard.FromVM, guard.PodPort)}))
			}
		}
	}
	if !w.Pod.NoEgress {
		rules = append(rules, nft.Rule{f.is, nft.InSet(f.flows(pods), f.outgoing()...), guard.Dropped(guard.FromVM, guard.PodConnection)})
	}
	if w.NIC.Addressed {
		rules = slices.Concat(rules, []nft.Rule{{f.is, f.laterFragment, nft.GoTo(sent)}}, f.handshaking())
	}
	if w.VMPorts.IsZero() {
		return append(rules, nft.Rule{nft.GoTo(sent)})
	}
	return slices.Concat(rules, w.answers(false, nft.GoTo(sent)), f.noting(f.flows(vms), nft.GoTo(sent), guard.Kept(guard.FromVM, guard.TooManyConnections, nft.GoTo(sent))))
}
