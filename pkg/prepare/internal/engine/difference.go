package engine

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Difference is one thing of a prepared pod interface that is not as planned.
type Difference struct {
	Interface string `json:"interface"` // the pod interface
	What      string `json:"what"`      // a link's name, or what else it is about
	Is        string `json:"is"`
	Want      string `json:"want"`
	Remedy    string `json:"remedy"`
	// Alias is whether it is what the pod's aliases take at the tap.
	Alias bool `json:"-"`
}

func (d Difference) String() string {
	switch {
	case d.Is != Missing:
		return d.What + " is " + d.Is + ", not " + d.Want
	case d.Want == whole:
		return d.What + " is missing"
	}
	return d.What + " is missing, which should be " + d.Want
}

// Otherwise is d with a remedy for who can't prepare the interface again, if that was the
// remedy.
func (d Difference) Otherwise(remedy string) Difference {
	if strings.Contains(d.Remedy, PrepareAgain) {
		d.Remedy = remedy
	}
	return d
}

// Missing is what a link or table is that does not exist; whole is what a table should be.
const (
	Missing = "missing"
	whole   = "whole"
)

// The ways out.
const (
	PrepareAgain = "run virt-launcher-net prepare with the same options, or end run and start it again"
	NewVM        = PrepareAgain + "; then restart the VM, which still has the old tap"
	NewPod       = "recreate the pod: the CNI's interface is gone"
	LookAtNode   = "look at the other end of the link, on the node: it is down, or deleted"
)

// Differences collects what differs of one pod interface.
type Differences struct {
	Interface string
	Found     []Difference
}

// Add adds one.
func (d *Differences) Add(what, is, want, remedy string) {
	d.Found = append(d.Found, Difference{Interface: d.Interface, What: what, Is: is, Want: want, Remedy: remedy})
}

// Up tells whether the link is up.
func (d *Differences) Up(l nl.Link) bool {
	if !l.Up() {
		d.Add(l.Name, "down", "up", PrepareAgain)
	}
	return l.Up()
}

// MAC looks at the link's MAC.
func (d *Differences) MAC(l nl.Link, want mac.Addr) {
	if l.MAC != want {
		d.Add(l.Name, "of MAC "+l.MAC.String(), "of "+want.String(), PrepareAgain)
	}
}

// MTU tells whether the link has that MTU.
func (d *Differences) MTU(l nl.Link, want int) bool {
	if l.MTU != want {
		d.Add(l.Name, fmt.Sprintf("of MTU %d", l.MTU), fmt.Sprintf("of %d", want), PrepareAgain)
	}
	return l.MTU == want
}

// Addresses looks for addresses at a link, as far as the state was read.
func (d *Differences) Addresses(s *State, l nl.Link, want []netip.Prefix, remedy string) {
	for _, p := range want {
		if s.Interfaces != nil && !s.Interfaces[l.Index].Has(p) {
			d.Add(l.Name, "without the address "+p.String(), "with it", remedy)
		}
	}
}

// Neighbors looks for permanent neighbors at a link, as far as the state was read, that have
// other MACs than those by which the kernel answers the VM for them: a CNI may have
// changed them. Nothing else has them follow: the record says what the VM is answered.
func (d *Differences) Neighbors(s *State, l nl.Link, answers []guest.Neighbor) {
	for _, now := range s.Interfaces[l.Index].Neighbors {
		i := slices.IndexFunc(answers, func(n guest.Neighbor) bool { return n.Address == now.Address })
		if i < 0 || answers[i].MAC == now.MAC {
			continue
		}
		told := answers[i].MAC
		d.Add("the neighbor "+now.Address.String()+" at "+l.Name, "of MAC "+now.MAC.String(), "of "+told.String()+", which the VM is told",
			fmt.Sprintf("if that is wrong, ip neigh replace %s lladdr %s dev %s nud permanent; if the neighbor has another MAC now, "+
				"recreate the pod, or stop the VM, restore, and prepare again", now.Address, told, l.Name))
	}
}

// Tap looks at the tap, but for what it is a port of, and returns it; nil: there is
// none. That nobody has it open, so that it has no carrier, is no difference.
func (d *Differences) Tap(s *State, t Tap) *nl.Link {
	l := s.Link(t.Name)
	if l == nil {
		d.Add(t.Name, Missing, "a tap", NewVM)
		return nil
	}
	if err := t.matches(*l); err != nil {
		d.Add(t.Name, Kind(*l)+" that was not made for the VM", "the planned tap", err.Error()+"; stop the VM before that, and "+NewVM)
		return nil
	}
	if len(t.ownerOps(*l)) > 0 {
		is := Owner{l.Tun.Owner, l.Tun.Group}.String()
		if !l.Tun.Persist {
			is += " and not persistent"
		}
		d.Add(t.Name, "owned by "+is, "persistent, owned by "+t.owner().String(), PrepareAgain)
	}
	if l.Tun.Queues > t.Queues { // each guest would get some of the frames
		d.Add(t.Name, fmt.Sprintf("open with %d queues", l.Tun.Queues), fmt.Sprintf("with the %d of one VM", t.Queues), "stop the VM that does not belong to the pod")
	}
	d.MAC(*l, t.MAC)
	return l
}

// Tables looks at the tables, as far as the state was read.
func (d *Differences) Tables(s *State, tables []nft.Table) {
	if s.Tables == nil {
		return
	}
	for _, t := range tables {
		now, there := s.Tables[t.ID()]
		if err := t.Differs(now, there, s.Index); !there {
			d.Add(t.Purpose, Missing, whole, PrepareAgain)
		} else if err != nil {
			d.Add(t.Purpose, "changed ("+err.Error()+")", whole, PrepareAgain)
		}
	}
}
