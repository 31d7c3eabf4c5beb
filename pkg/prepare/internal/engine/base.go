package engine

import (
	"errors"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// Base is what each wiring has, to be embedded: the NIC, and how its tap is made.
type Base struct {
	NIC            guest.NIC          `json:"nic"`
	TapOwner       *Owner             `json:"tapOwner,omitempty"`
	SELinuxContext string             `json:"selinuxContext,omitempty"` // the tap's
	Pod            discover.Interface `json:"-"`                        // as the CNI left it: Decode sets it
}

// Guest is what the VM gets.
func (b Base) Guest() guest.NIC { return b.NIC }

// Options are those of which it was made, as far as all datapaths have them.
func (b Base) Options() Options {
	return Options{
		MAC: b.NIC.MAC, MTU: b.NIC.MTU, Queues: b.NIC.Queues, TapOwner: b.TapOwner, SELinuxContext: b.SELinuxContext,
		NoGuard: !b.NIC.Guard, NoIPv6: b.NIC.IPv6 == nil, Names: map[string]string{TapRole: b.NIC.Tap},
	}
}

// Tap is the NIC's.
func (b Base) Tap() Tap {
	return Tap{b.NIC.Tap, b.NIC.TapMAC, b.NIC.MTU, b.NIC.Queues, b.TapOwner, b.SELinuxContext}
}

// Validate tells why the pod interface and the options don't go together. made are the
// names of links beside the tap.
func (b Base) Validate(made ...string) error {
	if most := b.Pod.MTU; b.NIC.MTU > most {
		return fmt.Errorf("MTU %d is more than %s carries, which is %d", b.NIC.MTU, b.Pod.Name, most)
	}
	return errors.Join(b.NIC.Validate(), CheckLabel(b.SELinuxContext), Distinct(append(made, b.Pod.Name, b.NIC.Tap)...))
}

// Gone says that the pod interface is not there, and what helps.
func (b Base) Gone(s *State) error {
	why := "is gone from this network namespace"
	if l := s.ByIndex(b.Pod.Index); l != nil {
		why = "is gone, and its index is that of " + l.Name + " now, " + Describe(*l)
	}
	return fmt.Errorf("the pod interface %s (index %d) %s: its VM has no network; run restore, which removes what is left of it, "+
		"and recreate the pod, or have the CNI add the interface again", b.Pod.Name, b.Pod.Index, why)
}

// LeftAlone says of a link that it has the name of one that was made for the VM.
func LeftAlone(l nl.Link) string {
	return fmt.Sprintf("%s is left alone: it is %s that was not made for the VM", l.Name, Describe(l))
}
