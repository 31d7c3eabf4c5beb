package redirect

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Apply works from every state that an apply or a restore may have been killed in. The
// table comes before the tap is up: nothing of a VM gets into the pod without it.
func (w wiring) Apply(s *engine.State) (st engine.Steps, err error) {
	switch l := s.ByIndex(w.Pod.Index); {
	case l != nil && l.Name != w.Pod.Name:
		return st, fmt.Errorf("the pod interface %s is called %s now: ip link set %s name %s", w.Pod.Name, l.Name, l.Name, w.Pod.Name)
	case l == nil:
		return st, w.Gone(s)
	}
	if err := w.aliasesFree(s); err != nil {
		return st, err
	}
	// What makes it anew takes what the kernel knows of neighbors along.
	l := s.Link(w.NIC.Tap)
	table := engine.TableOps(s, w.NIC.Tap, w.Tables()...)
	tap, err := w.Tap().Ops(s, l == nil && w.hasTable(s))
	if err != nil {
		return st, err
	}
	if l == nil {
		l = &nl.Link{Name: w.NIC.Tap}
	}
	tap = slices.Concat(tap, engine.ChecksumOps(s, w.NIC), engine.Master.Set(l.Name, s.Master(*l), ""))
	arp := engine.ARP.Set(l.Name, l.ARP(), false)
	up := engine.Up.Set(l.Name, l.Up(), true)
	now := s.Interfaces[l.Index]
	if l.Index == 0 || len(arp)+len(up) > 0 || l.MAC != w.NIC.TapMAC {
		now = discover.Interface{Addresses: now.Addresses}
	}
	st[engine.Make] = slices.Concat(tap, table, arp, up, w.aliasOps(now))
	return st, nil
}

// hasTable tells whether the table is there, so that the pod is prepared.
func (w wiring) hasTable(s *engine.State) bool {
	_, there := s.Tables[nft.ID{Family: nft.Netdev.Number, Name: nft.Prefix + w.NIC.Interface}]
	return there
}

// aliasOps give the tap, which has what now has, the pod's aliases.
func (w wiring) aliasOps(now discover.Interface) (ops []engine.Op) {
	for _, a := range w.NIC.Aliases {
		if !now.Has(prefixOf(a)) {
			ops = append(ops, w.addressOp(a))
		}
		for _, neighbor := range w.neighbors(a) {
			if !w.knows(now, neighbor) {
				ops = append(ops, w.neighborOp(neighbor))
			}
		}
	}
	return ops
}

// neighbors are by what addresses the pod's stack looks for the VM at the tap: that for
// the alias has been rewritten by then, but for IPv6 that it knows a smaller MTU of.
func (w wiring) neighbors(a guest.Alias) []netip.Addr {
	f := families[0]
	if a.VM.Is6() {
		f = families[1]
	}
	return []netip.Addr{a.VM, f.own(w.NIC)}
}

// knows tells whether the tap knows the MAC of the VM by an address.
func (w wiring) knows(now discover.Interface, a netip.Addr) bool {
	return slices.ContainsFunc(now.Neighbors, func(n discover.Neighbor) bool { return n.Address == a && n.MAC == w.NIC.MAC })
}

// hasAlias tells whether the tap has all that an alias takes.
func (w wiring) hasAlias(now discover.Interface, a guest.Alias) bool {
	return now.Has(prefixOf(a)) && !slices.ContainsFunc(w.neighbors(a), func(n netip.Addr) bool { return !w.knows(now, n) })
}

// aliasesFree refuses aliases that the pod has another use for, by whatever link.
func (w wiring) aliasesFree(s *engine.State) error {
	for _, a := range w.NIC.Aliases {
		for _, x := range []netip.Addr{a.VM, a.Pod} {
			for _, in := range s.Interfaces {
				if in.Name != w.NIC.Tap && isNear(in, x) {
					return fmt.Errorf("the VM's alias %s, with the pod's %s, is in a network that the pod has by %s: choose another alias", a.VM, a.Pod, in.Name)
				}
			}
		}
	}
	return nil
}
