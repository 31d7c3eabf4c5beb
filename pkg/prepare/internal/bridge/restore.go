package bridge

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/podside"
)

// Restore works, like Apply, from every state in between.
func (w wiring) Restore(s *engine.State) (st engine.Steps, notes []string, err error) {
	uplink, placeholder := w.uplink(s), w.placeholder(s)
	if l := w.namesake(s); l != nil && placeholder == nil {
		if uplink != nil {
			return st, nil, fmt.Errorf("the name %s is taken by %s that was not made for its VM: give that another name, then restore again",
				l.Name, engine.Describe(*l))
		}
		notes = append(notes, engine.LeftAlone(*l))
	}
	st[engine.Links] = engine.DropTableOps(s, ingressTable(w.NIC, w.Uplink.Name)) // while links have the names by which it hooks
	was := w.Pod
	if placeholder != nil {
		was = podside.WithNew(was, s.Interfaces[placeholder.Index].Neighbors)
		rebuild := append(bridgeAsIs(*placeholder), podside.Addresses(s.Interfaces[placeholder.Index])...)
		st[engine.Links] = append(st[engine.Links], engine.DelLink{Name: placeholder.Name, Rebuild: rebuild})
	}
	if uplink != nil {
		st[engine.Links] = append(st[engine.Links], w.restoreUplinkOps(s, *uplink)...)
		podside.PutBack(was, s.Interfaces[uplink.Index], s.Routes, &st)
	} else {
		notes = append(notes, fmt.Sprintf("the pod interface %s is gone: only what was made for its VM is removed", w.Pod.Name))
	}
	st[engine.End] = append(st[engine.End], engine.DropTableOps(s, guardTable(w.NIC, w.Uplink.Name))...)
	if l := s.Link(w.NIC.Tap); l != nil && w.isTap(s, *l) {
		st[engine.End] = append(st[engine.End], w.Tap().Delete(s, *l, w.portAsIs(s, *l)...))
	} else if l != nil {
		notes = append(notes, engine.LeftAlone(*l))
	}
	if l := s.Link(w.Bridge.Name); l != nil && isOurs(*l, w.Bridge) {
		st[engine.End] = append(st[engine.End], engine.DelLink{Name: l.Name, Rebuild: bridgeAsIs(*l)})
	} else if l != nil {
		notes = append(notes, engine.LeftAlone(*l))
	}
	return st, notes, nil
}

// bridgeAsIs makes a bridge again as it is now.
func bridgeAsIs(l nl.Link) engine.Sequence {
	return slices.Concat(engine.Sequence{addBridge{device{l.Name, l.MAC}, l.MTU, l.Index}},
		engine.AddrGenModeOfNew(l), engine.Up.Set(l.Name, false, l.Up()))
}

// portAsIs makes a link the port again that it is now.
func (w wiring) portAsIs(s *engine.State, l nl.Link) []engine.Op {
	ops := append(engine.Master.Set(l.Name, "", s.Master(l)), groupForward.Set(l.Name, 0, l.GroupForward)...)
	for _, t := range w.tapPort() {
		ops = append(ops, t.change.Set(l.Name, newPort.On(t.attr), l.Port.On(t.attr))...)
	}
	return ops
}

// restoreUplinkOps make the uplink the pod interface again.
func (w wiring) restoreUplinkOps(s *engine.State, l nl.Link) []engine.Op {
	was := w.Pod
	staysUp := l.Up() && l.Name == was.Name && l.MAC == was.MAC
	ops := engine.Up.Set(l.Name, l.Up(), staysUp)
	if m := s.Master(l); m != "" && m == w.Bridge.Name {
		// All but the last are so that undoing this finds the port as it is now.
		for _, t := range uplinkToggles {
			ops = append(ops, t.change.Set(l.Name, l.Port.On(t.attr), newPort.On(t.attr))...)
		}
		ops = slices.Concat(ops, groupForward.Set(l.Name, l.GroupForward, 0), engine.Master.Set(l.Name, m, ""))
	}
	ops = slices.Concat(ops,
		engine.MAC.Set(l.Name, l.MAC, was.MAC),
		engine.Rename(l.Name, was.Name),
		engine.ARP.Set(was.Name, l.ARP(), was.ARP),
		engine.MTU.Set(was.Name, l.MTU, was.MTU))
	if l.AddrGenMode != nl.AddrGenModeUnknown && was.AddrGenMode >= 0 {
		ops = append(ops, engine.AddrGenMode.Set(was.Name, l.AddrGenMode, was.AddrGenMode)...)
	}
	return append(ops, engine.Up.Set(was.Name, staysUp, was.Up)...)
}

// A record says which links were made for a VM, and under which names. Somebody
// may have deleted them since, and something else may have got the name or the
// index. So a link is taken for ours only if it also is what was planned.

// uplink returns the pod interface, whatever it is called now, or nil.
func (w wiring) uplink(s *engine.State) *nl.Link {
	l := s.ByIndex(w.Pod.Index)
	if l == nil || cmp.Or(l.Kind, "physical") != w.Pod.Kind {
		return nil
	}
	if l.Name == w.Uplink.Name || l.Name == w.Pod.Name || l.MAC == w.Uplink.MAC || l.MAC == w.Pod.MAC {
		return l
	}
	return nil
}

// namesake returns another link than the pod interface that has its name, or nil.
func (w wiring) namesake(s *engine.State) *nl.Link {
	l := s.Link(w.Pod.Name)
	if up := w.uplink(s); l == nil || up != nil && up.Index == l.Index {
		return nil
	}
	return l
}

// placeholder returns the placeholder, or nil.
func (w wiring) placeholder(s *engine.State) *nl.Link {
	if l := w.namesake(s); l != nil && isOurs(*l, w.Placeholder) {
		return l
	}
	return nil
}

// isOurs reports whether a link is a bridge that was made here. Others do ARP, or had
// their MAC changed.
func isOurs(l nl.Link, d device) bool { return l.Kind == nl.KindBridge && (l.MAC == d.MAC || !l.ARP()) }

// isTap reports whether a link is the tap that was made here.
func (w wiring) isTap(s *engine.State, l nl.Link) bool {
	if l.Tun == nil || !l.Tun.Tap {
		return false
	}
	b := s.Link(w.Bridge.Name)
	return l.MAC == w.NIC.TapMAC || b != nil && isOurs(*b, w.Bridge) && l.Master == b.Index
}
