package prepare

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// flagUp is IFF_UP (linux/if.h).
const flagUp = unix.IFF_UP

// applyOps returns what is still to do, in order, so that the namespace is as
// the plans want it, beside others that are applied: nothing if it is. It works
// from every state that an apply or a restore may have been killed in. Whatever
// can fail for a reason of the kernel's (no nftables, no tun, no bridge) comes
// before a pod interface is touched; the guard, which [CheckSupport] can't ask
// for quickly, is the first of all, so that nothing is changed where it is
// refused.
func applyOps(s state, plans, others []Plan) ([]op, error) {
	var all steps
	for _, p := range plans {
		st, err := p.applySteps(s)
		if err != nil {
			return nil, fmt.Errorf("prepare %s: %w", p.Interface.Name, err)
		}
		all.and(st)
	}
	var losing []int
	for _, p := range plans {
		losing = append(losing, p.Interface.Index)
	}
	before := interfacesOf(others)
	for _, p := range plans {
		if l := p.uplink(s); l != nil && l.Name == p.Bridge.Uplink { // it is rewired already
			before = append(before, p.Interface)
		}
	}
	all.and(sharedSteps(s, plans, before, slices.Concat(before, interfacesOf(plans)), losing))
	return all.ops(), nil
}

func (p Plan) applyOps(s state) ([]op, error) { return applyOps(s, []Plan{p}, nil) }

// applySteps is p's own part of applyOps.
func (p Plan) applySteps(s state) (st steps, err error) {
	tap, err := p.tapOps(s)
	if err != nil {
		return st, err
	}
	bridge, err := p.bridgeOps(s)
	if err != nil {
		return st, err
	}
	st[makeStep] = slices.Concat(p.guardOps(s), tap, p.checksumOps(s), bridge, p.answersOps(s), p.tapPortOps(s))
	uplink, err := p.uplinkOps(s)
	if err != nil {
		return st, err
	}
	placeholder, err := p.placeholderOps(s)
	if err != nil {
		return st, err
	}
	in := s.interfaces[p.Interface.Index] // the uplink's, or uplinkOps had an error
	p.stripRoutes(&st, in)
	// Addresses first: once the link has another name the kernel no longer
	// finds an IPv4 address by its label.
	st[linkStep] = slices.Concat(stripAddresses(in), uplink, placeholder)
	return st, nil
}

// knobOps keeps br_netfilter from showing the VM's frames to the pod's iptables.
func knobOps(s state) []op {
	var ops []op
	for _, name := range knobNames {
		if v, ok := s.knobs[name]; ok && v != "0" {
			ops = append(ops, setKnob{name, v, "0"})
		}
	}
	return ops
}

// tapOps makes the tap, which the bridge does not forward to yet.
func (p Plan) tapOps(s state) ([]op, error) {
	l := s.link(p.Tap.Name)
	if l == nil {
		return append([]op{
			addTap{tap: p.Tap, again: s.link(p.Bridge.Uplink) != nil}, // which gets that name later
			setMTU{p.Tap.Name, 1500, p.MTU},
		}, silenceNew(p.Tap.Name, p.MTU)...), nil
	}
	if err := p.Tap.matches(*l); err != nil {
		return nil, err
	}
	ops := p.Tap.ownerOps(*l)
	if l.MAC != p.Tap.MAC {
		ops = append(ops, setMAC{l.Name, l.MAC, p.Tap.MAC})
	}
	if l.MTU != p.MTU {
		ops = append(ops, setMTU{l.Name, l.MTU, p.MTU})
	}
	return append(ops, silence(*l)...), nil
}

// guardOps makes the guard, if there is to be one.
func (p Plan) guardOps(s state) []op {
	if p.Guard {
		return tableOps(s, p.guard(), p.Tap.Name)
	}
	return dropTableOps(s, p.guard())
}

// answersOps makes the answers for neighbours that need them.
func (p Plan) answersOps(s state) []op {
	if len(p.answers().chains) > 0 {
		return tableOps(s, p.answers(), p.Tap.Name)
	}
	return dropTableOps(s, p.answers())
}

// tapPortOps lets the tap join the bridge.
func (p Plan) tapPortOps(s state) []op {
	l := s.link(p.Tap.Name)
	if l == nil {
		return slices.Concat([]op{setMaster{p.Tap.Name, "", p.Bridge.Name}}, p.groupOps(p.Tap.Name, nil, false), []op{setUp{p.Tap.Name, true}})
	}
	var ops []op
	if m := s.master(*l); m != p.Bridge.Name {
		ops = append(ops, setMaster{l.Name, m, p.Bridge.Name})
	}
	ops = append(ops, p.groupOps(l.Name, l, s.master(*l) == p.Bridge.Name)...)
	if !l.Up() {
		ops = append(ops, setUp{l.Name, true})
	}
	return ops
}

// bridgeOps makes the bridge that uplink and tap are to join. It has no address
// and is silent: it must neither answer for the VM nor emit anything.
func (p Plan) bridgeOps(s state) ([]op, error) {
	mtu := p.MTU
	if l := s.link(p.Bridge.Name); l != nil && l.MTU == s.leastMTU(l.Index) {
		mtu = l.MTU // it follows its ports, and would not if it were set
	}
	return silentBridge(s, p.Bridge.Name, p.Bridge.MAC, mtu, "bridge")
}

// silentBridge makes a bridge or completes one; use is what for, as in
// [NameTakenError].
func silentBridge(s state, name string, mac mac.Addr, mtu int, use string) ([]op, error) {
	l := s.link(name)
	if l == nil {
		return slices.Concat([]op{addBridge{name: name, mac: mac, mtu: mtu}}, silenceNew(name, mtu), []op{setUp{name, true}}), nil
	}
	if !isSilentBridge(*l, mac) {
		return nil, &NameTakenError{name, use, fmt.Sprintf("by %s: give that another name, delete it (ip link delete %s)", describe(*l), name)}
	}
	ops := silence(*l)
	if l.MAC != mac {
		ops = append(ops, setMAC{name, l.MAC, mac})
	}
	if l.MTU != mtu {
		ops = append(ops, setMTU{name, l.MTU, mtu})
	}
	if !l.Up() {
		ops = append(ops, setUp{name, true})
	}
	return ops, nil
}

// silence keeps the kernel from giving a link an IPv6 address of its own.
func silence(l nl.Link) []op {
	if l.AddrGenMode == nl.AddrGenModeUnknown || l.AddrGenMode == addrGenModeNone {
		return nil
	}
	return []op{setAddrGenMode{l.Name, l.AddrGenMode, addrGenModeNone}}
}

// silenceNew is silence of a link that is made. One too small for IPv6 has none.
func silenceNew(name string, mtu int) []op {
	if mtu < minIPv6MTU {
		return nil
	}
	return []op{setAddrGenMode{name, 0, addrGenModeNone}}
}

// uplinkOps turns the pod interface into a port of the bridge.
func (p Plan) uplinkOps(s state) ([]op, error) {
	l := p.uplink(s)
	if l == nil {
		return nil, p.uplinkGone(s)
	}
	if other := s.link(p.Bridge.Uplink); other != nil && other.Index != l.Index {
		return nil, &NameTakenError{p.Bridge.Uplink, "uplink", fmt.Sprintf("by another link: delete it (ip link delete %s)", p.Bridge.Uplink)}
	}
	name, up := l.Name, l.Up()
	var ops []op
	if up && name == p.Interface.Name { // else a VM may have it, which must not lose it
		ops = append(ops, setUp{name, false})
		up = false
	}
	if name != p.Bridge.Uplink {
		ops = append(ops, rename{name, p.Bridge.Uplink})
		name = p.Bridge.Uplink
	}
	if l.MAC != p.Bridge.UplinkMAC {
		ops = append(ops, setMAC{name, l.MAC, p.Bridge.UplinkMAC})
	}
	if l.MTU != p.Interface.MTU {
		ops = append(ops, setMTU{name, l.MTU, p.Interface.MTU})
	}
	if mode := l.AddrGenMode; mode != nl.AddrGenModeUnknown && mode != addrGenModeNone {
		ops = append(ops, setAddrGenMode{name, mode, addrGenModeNone})
	}
	if m := s.master(*l); m != p.Bridge.Name {
		ops = append(ops, setMaster{name, m, p.Bridge.Name}, setLearning{name, false})
	} else if l.Learning {
		ops = append(ops, setLearning{name, false})
	}
	ops = append(ops, p.groupOps(name, l, s.master(*l) == p.Bridge.Name)...)
	if !up {
		ops = append(ops, setUp{name, true})
	}
	return ops, nil
}

// stripRoutes takes from an interface the routes that it has now, but for those
// that it shares, and the neighbours.
func (p Plan) stripRoutes(st *steps, in discover.Interface) {
	shared := sharedRoutes([]Plan{p})
	for _, r := range replayOrder(in.Routes) {
		if !containsRoute(shared, r) {
			st.goes(r, routeChange(false, in.Name, r))
		}
	}
	var neighbors []op
	for _, n := range in.Neighbors {
		neighbors = append(neighbors, neighborChange(false, in.Name, n))
	}
	for _, n := range in.Proxies {
		neighbors = append(neighbors, proxyChange(false, in.Name, n))
	}
	st[viaGoes] = append(neighbors, st[viaGoes]...)
}

// stripAddresses takes from an interface all addresses.
func stripAddresses(in discover.Interface) []op {
	var ops []op
	for _, a := range slices.Backward(addressReplayOrder(in.Addresses)) {
		ops = append(ops, addressChange(false, in.Name, a))
	}
	return ops
}

// placeholderOps leaves the pod's address where others look it up: on a bridge
// without ports, which neither attracts nor answers traffic.
func (p Plan) placeholderOps(s state) ([]op, error) {
	name := p.Interface.Name
	l := s.link(name)
	if l != nil && l.Index == p.Interface.Index { // to be renamed
		l = nil
		s.links = slices.DeleteFunc(slices.Clone(s.links), func(l nl.Link) bool { return l.Index == p.Interface.Index })
	}
	ops, err := silentBridge(s, name, p.placeholderMAC(), p.Interface.MTU, "")
	if err != nil {
		return nil, err
	}
	for _, a := range p.placeholderAddresses() {
		if l == nil || !hasAddress(s.interfaces[l.Index], a) {
			ops = append(ops, placeAddress{name, a, true})
		}
	}
	return ops, nil
}

func (p Plan) placeholderAddresses() []discover.Address {
	return slices.DeleteFunc(slices.Clone(p.Interface.Addresses), func(a discover.Address) bool {
		return !a.Prefix.Addr().Is4()
	})
}

func hasAddress(in discover.Interface, a discover.Address) bool {
	return slices.ContainsFunc(in.Addresses, func(b discover.Address) bool { return a.Prefix == b.Prefix })
}
