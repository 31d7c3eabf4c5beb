package redirect

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Restore deletes the tables and the tap. The tap is down before: what a VM sends must
// not get into the pod once the table is gone. What keeps the aliases from others is last.
func (w wiring) Restore(s *engine.State) (st engine.Steps, notes []string, err error) {
	var last []engine.Op
	if l := s.Link(w.NIC.Tap); l != nil && w.isTap(*l) {
		asIs := append(engine.ARP.Set(l.Name, true, l.ARP()), w.aliasesAsTheyAre(s, *l)...)
		now := *l
		if l.Up() {
			st[engine.End] = append(st[engine.End], closeTap{l.Name, append(engine.Up.Set(l.Name, false, true), asIs...)})
			now.Flags &^= unix.IFF_UP
			asIs = nil // it is that when it is up again
		}
		last = append(last, w.Tap().Delete(s, now, asIs...))
	} else if l != nil {
		notes = append(notes, engine.LeftAlone(*l))
	}
	st[engine.End] = slices.Concat(st[engine.End], engine.DropTableOps(s, w.table()), last, engine.DropTableOps(s, w.stackTables()...))
	return st, notes, nil
}

// isTap reports whether a link is the tap that was made here.
func (w wiring) isTap(l nl.Link) bool {
	return l.Tun != nil && l.Tun.Tap && (l.MAC == w.NIC.TapMAC || !l.ARP())
}

// aliasesAsTheyAre give the tap again what it has of the aliases.
func (w wiring) aliasesAsTheyAre(s *engine.State, l nl.Link) (ops []engine.Op) {
	now := s.Interfaces[l.Index]
	for _, a := range w.NIC.Aliases {
		if now.Has(prefixOf(a)) {
			ops = append(ops, w.addressOp(a))
		}
		for _, neighbor := range w.neighbors(a) {
			if w.knows(now, neighbor) {
				ops = append(ops, w.neighborOp(neighbor))
			}
		}
	}
	return ops
}

// closeTap takes the tap down. The kernel forgets neighbors and IPv6 addresses of it
// then, which reopen sets again.
type closeTap struct {
	tap    string
	reopen engine.Sequence
}

func (o closeTap) String() string { return "ip link set " + o.tap + " down" }

// Inverse has it up as it was.
func (o closeTap) Inverse() engine.Op { return o.reopen }

// Do takes it down.
func (o closeTap) Do(k *engine.Kernel) error {
	return engine.Sequence(engine.Up.Set(o.tap, true, false)).Do(k)
}
