package prestart

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Interface is a prepared pod interface: what the VM gets of it, and by which links.
type Interface struct {
	guest.NIC
	Datapath  string         `json:"datapath,omitempty"` // empty: it is served without a record
	PodPorts  guest.Ports    `json:"podPorts,omitzero"`  // as in [prepare.Options]
	VMPorts   guest.Ports    `json:"vmPorts,omitzero"`   // likewise
	Addresses []netip.Prefix `json:"addresses"`          // of both families
	Links     []prepare.Link `json:"links,omitempty"`
}

// NewInterface is what a plan amounts to once it is applied.
func NewInterface(p prepare.Plan) Interface {
	i := newInterface(p.NIC())
	i.Datapath, i.Links = p.Datapath, p.Links()
	i.PodPorts, i.VMPorts = p.Ports()
	return i
}

func newInterface(n guest.NIC) Interface {
	return Interface{NIC: n.Clone(), Addresses: append([]netip.Prefix{}, n.Addresses()...)}
}

func (n *nic) describe() Interface {
	plan := n.plan.Load()
	if plan == nil {
		return newInterface(n.NIC)
	}
	return NewInterface(*plan)
}

// together are the interfaces of one VM.
func together(all []Interface) []Interface {
	names := namesOf(guestSides(all))
	for i := range all {
		all[i].Omitted = withoutNICs(all[i].Omitted, names)
	}
	return all
}

func guestSides(all []Interface) []guest.NIC {
	return each(all, func(i Interface) guest.NIC { return i.NIC })
}

// interfaces is what is in [NICsFile].
type interfaces struct {
	Interfaces []Interface `json:"interfaces"`
}

// ParseNICs returns the NICs of a [NICsFile], as [Hook.Serve] takes them, which checks
// them.
func ParseNICs(text []byte) ([]guest.NIC, error) {
	var all interfaces
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read NICs: %w", err)
	}
	if len(all.Interfaces) == 0 {
		return nil, fmt.Errorf("read NICs: the file has none: use %s, or the output of prepare -o json", NICsFile)
	}
	return guestSides(all.Interfaces), nil
}
