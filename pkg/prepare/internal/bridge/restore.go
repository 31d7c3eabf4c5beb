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
		notes = append(notes, stranger(*l))
	}
	st[engine.Links] = engine.DropTableOps(s, ingressTable(w.NIC, w.Uplink.Name)) // while links have the names by which it hooks
	was := w.pod
	if placeholder != nil {
		was = podside.WithNew(was, s.Interfaces[placeholder.Index].Neighbors)
		rebuild := append(bridgeAsIs(*placeholder), podside.Addresses(s.Interfaces[placeholder.Index])...)
		st[engine.Links] = append(st[engine.Links], engine.DelLink{Name: placeholder.Name, Rebuild: rebuild})
	}
	if uplink != nil {
		st[engine.Links] = append(st[engine.Links], w.restoreUplinkOps(s, *uplink)...)
		podside.PutBack(was, s.Interfaces[uplink.Index], s.Routes, &st)
	} else {
		notes = append(notes, fmt.Sprintf("the pod interface %s is gone: only what was made for its VM is removed", w.pod.Name))
	}
	st[engine.End] = append(st[engine.End], engine.DropTableOps(s, guardTable(w.NIC, w.Uplink.Name))...)
	if l := s.Link(w.NIC.Tap); l != nil && w.isTap(s, *l) {
		st[engine.End] = append(st[engine.End], w.tap().Delete(s, *l, w.portAsIs(s, *l)...))
	} else if l != nil {
		notes = append(notes, stranger(*l))
	}
	if l := s.Link(w.Bridge.Name); l != nil && isOurs(*l, w.Bridge) {
		st[engine.End] = append(st[engine.End], engine.DelLink{Name: l.Name, Rebuild: bridgeAsIs(*l)})
	} else if l != nil {
		notes = append(notes, stranger(*l))
	}
	return st, notes, nil
}

func stranger(l nl.Link) string {
	return fmt.Sprintf("%s is left alone: it is %s that was not made for the VM", l.Name, engine.Describe(l))
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
	was := w.pod
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
	l := s.ByIndex(w.pod.Index)
	if l == nil || cmp.Or(l.Kind, "physical") != w.pod.Kind {
		return nil
	}
	if l.Name == w.Uplink.Name || l.Name == w.pod.Name || l.MAC == w.Uplink.MAC || l.MAC == w.pod.MAC {
		return l
	}
	return nil
}

// uplinkGone says why there is no uplink, and what helps.
func (w wiring) uplinkGone(s *engine.State) error {
	why := "is gone from this network namespace"
	if l := s.ByIndex(w.pod.Index); l != nil {
		why = "is gone, and its index is that of " + l.Name + " now, " + engine.Describe(*l)
	}
	return fmt.Errorf("the pod interface %s (index %d) %s: its VM has no network; run restore, which removes what is left of it, "+
		"and recreate the pod, or have the CNI add the interface again", w.pod.Name, w.pod.Index, why)
}

// namesake returns another link than the pod interface that has its name, or nil.
func (w wiring) namesake(s *engine.State) *nl.Link {
	l := s.Link(w.pod.Name)
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
func isOurs(l nl.Link, d device) bool { return l.Kind == kind && (l.MAC == d.MAC || !l.ARP()) }

// isTap reports whether a link is the tap that was made here.
func (w wiring) isTap(s *engine.State, l nl.Link) bool {
	if l.Tun == nil || !l.Tun.Tap {
		return false
	}
	b := s.Link(w.Bridge.Name)
	return l.MAC == w.NIC.TapMAC || b != nil && isOurs(*b, w.Bridge) && l.Master == b.Index
}
