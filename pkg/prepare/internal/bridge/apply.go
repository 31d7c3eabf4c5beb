package bridge

import (
	"cmp"
	"errors"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/podside"
)

// Apply works from every state that an apply or a restore may have been killed in.
// Whatever can fail for a reason of the kernel's (no nftables, no tun, no bridge)
// comes before the pod interface is touched; the guard, for which the kernel can't be
// asked quickly, is the first of all.
func (w wiring) Apply(s *engine.State) (st engine.Steps, _ error) {
	tap, tapErr := w.Tap().Ops(s, s.Link(w.Uplink.Name) != nil) // which gets that name later
	bridge, bridgeErr := w.bridgeOps(s)
	uplink, uplinkErr := w.uplinkOps(s)
	placeholder, placeholderErr := w.placeholderOps(s)
	if err := errors.Join(tapErr, bridgeErr, uplinkErr, placeholderErr); err != nil {
		return st, err
	}
	guard := w.tableOps(s, guardTable(w.NIC, w.Uplink.Name), w.NIC.Guard)
	st[engine.Make] = slices.Concat(guard, tap, engine.ChecksumOps(s, w.NIC), bridge, w.tapPortOps(s))
	// Addresses first: once the link has another name the kernel no longer
	// finds an IPv4 address by its label.
	podside.Take(s.Interfaces[w.Pod.Index], &st)
	ingress := ingressTable(w.NIC, w.Uplink.Name) // behind the links by whose names it hooks
	st[engine.Links] = slices.Concat(st[engine.Links], uplink, placeholder, w.tableOps(s, ingress, len(ingress.Chains) > 0))
	return st, nil
}

// tableOps make a table, or delete it if there is to be none.
func (w wiring) tableOps(s *engine.State, t nft.Table, wanted bool) []engine.Op {
	if !wanted {
		return engine.DropTableOps(s, t)
	}
	return engine.TableOps(s, w.NIC.Tap, t)
}

// tapPortOps let the tap join the bridge.
func (w wiring) tapPortOps(s *engine.State) []engine.Op {
	l := cmp.Or(s.Link(w.NIC.Tap), &nl.Link{Name: w.NIC.Tap})
	return append(w.joinOps(s, *l, w.tapPort()), engine.Up.Set(l.Name, l.Up(), true)...)
}

// joinOps make a link a port of the bridge that passes on what it should.
func (w wiring) joinOps(s *engine.State, l nl.Link, toggles []toggle) []engine.Op {
	ops := engine.Master.Set(l.Name, s.Master(l), w.Bridge.Name)
	if len(ops) > 0 {
		l.GroupForward, l.Port, l.PortState = 0, newPort, stateForwarding
	}
	ops = append(ops, groupForward.Set(l.Name, l.GroupForward, w.groupForward())...)
	for _, t := range toggles {
		ops = append(ops, t.change.Set(l.Name, l.Port.On(t.attr), t.want)...)
	}
	if l.Running() {
		ops = append(ops, portState.Set(l.Name, l.PortState, stateForwarding)...)
	}
	return ops
}

// bridgeOps make the bridge that uplink and tap are to join. It has no address, and
// must neither answer for the VM nor send anything.
func (w wiring) bridgeOps(s *engine.State) ([]engine.Op, error) {
	mtu := w.NIC.MTU
	if l := s.Link(w.Bridge.Name); l != nil && l.MTU == leastMTU(s, l.Index) {
		mtu = l.MTU // it follows its ports, and would not if it were set
	}
	ops, err := makeOps(s, w.Bridge, mtu, bridgeRole)
	if l := s.Link(w.Bridge.Name); l != nil {
		for _, t := range bridgeToggles {
			ops = append(ops, t.change.Set(l.Name, l.Bridge.On(t.attr), t.want)...)
		}
	}
	return ops, err
}

// leastMTU is the least of a bridge's ports; 0: it has none.
func leastMTU(s *engine.State, bridge int) (least int) {
	for _, l := range s.Links {
		if l.Master == bridge && (least == 0 || l.MTU < least) {
			least = l.MTU
		}
	}
	return least
}

// makeOps make a bridge that is silent itself, or complete one; role is as in
// [engine.NameTakenError].
func makeOps(s *engine.State, d device, mtu int, role string) ([]engine.Op, error) {
	l := s.Link(d.Name)
	if l == nil {
		return slices.Concat([]engine.Op{addBridge{device: d, mtu: mtu}}, engine.NoAddressesNew(d.Name, mtu), engine.Up.Set(d.Name, false, true)), nil
	}
	if !isOurs(*l, d) {
		return nil, &engine.NameTakenError{Name: d.Name, For: role, Why: "by " + engine.Describe(*l), Free: "give that another name"}
	}
	return slices.Concat(engine.NoAddresses(*l), engine.MAC.Set(d.Name, l.MAC, d.MAC),
		engine.MTU.Set(d.Name, l.MTU, mtu), engine.Up.Set(d.Name, l.Up(), true)), nil
}

// uplinkOps turn the pod interface into a port of the bridge. It does no ARP: should
// somebody take it out of the bridge, the pod must not answer for the VM.
func (w wiring) uplinkOps(s *engine.State) ([]engine.Op, error) {
	l := w.uplink(s)
	if l == nil {
		return nil, w.Gone(s)
	}
	if other := s.Link(w.Uplink.Name); other != nil && other.Index != l.Index {
		return nil, &engine.NameTakenError{Name: w.Uplink.Name, For: uplinkRole, Why: "by " + engine.Describe(*other), Free: "give that another name"}
	}
	now := *l
	now.Name = w.Uplink.Name
	staysUp := l.Up() && l.Name != w.Pod.Name // a VM may have it, which must not lose it
	return slices.Concat(
		engine.Up.Set(l.Name, l.Up(), staysUp),
		engine.Rename(l.Name, now.Name),
		engine.MAC.Set(now.Name, l.MAC, w.Uplink.MAC),
		engine.ARP.Set(now.Name, l.ARP(), false),
		engine.MTU.Set(now.Name, l.MTU, w.Pod.MTU),
		engine.NoAddresses(now),
		w.joinOps(s, now, uplinkToggles),
		engine.Up.Set(now.Name, staysUp, true),
	), nil
}

// placeholderOps leave the pod's name, MAC and addresses where others look them up:
// on a bridge without ports, which neither attracts nor answers traffic.
func (w wiring) placeholderOps(s *engine.State) ([]engine.Op, error) {
	before := *s
	before.Links = slices.DeleteFunc(slices.Clone(s.Links), func(l nl.Link) bool { return l.Index == w.Pod.Index }) // it is renamed by then
	ops, err := makeOps(&before, w.Placeholder, w.Pod.MTU, "")
	if err != nil {
		return nil, err
	}
	l := before.Link(w.Placeholder.Name)
	for _, p := range w.Addresses {
		if l == nil || !s.Interfaces[l.Index].Has(p) {
			ops = append(ops, engine.Address{Link: w.Placeholder.Name, Prefix: p, NoRoute: true})
		}
	}
	return ops, nil
}
