package prestart

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Interface is a prepared pod interface: what the VM gets of it, and by which links.
type Interface struct {
	guest.NIC
	Datapath  string         `json:"datapath,omitempty"` // empty: it is served without a record
	Addresses []netip.Prefix `json:"addresses"`          // of both families
	Links     []prepare.Link `json:"links,omitempty"`
}

// NewInterface is what a plan amounts to once it is applied.
func NewInterface(p prepare.Plan) Interface {
	i := newInterface(p.NIC())
	i.Datapath, i.Links = p.Datapath, p.Links()
	return i
}

func newInterface(n guest.NIC) Interface {
	i := Interface{NIC: n, Addresses: []netip.Prefix{}}
	if n.IPv4 != nil {
		i.Addresses = append(i.Addresses, n.IPv4.Addresses...)
	}
	if n.IPv6 != nil {
		i.Addresses = append(i.Addresses, n.IPv6.Address)
	}
	return i
}

func (n *nic) describe() Interface {
	if n.plan == nil {
		return newInterface(n.NIC)
	}
	return NewInterface(*n.plan)
}

func describeAll(plans []prepare.Plan) []Interface {
	out := make([]Interface, len(plans))
	for i, p := range plans {
		out[i] = NewInterface(p)
		out[i].Omitted = withoutNICs(out[i].Omitted, namesOf(plans))
	}
	return out
}

// interfaces is what is in [NICsFile].
type interfaces struct {
	Interfaces []Interface `json:"interfaces"`
}

// ReadNICs reads the NICs of a [NICsFile], as [Hook.Serve] takes them, which checks
// them.
func ReadNICs(r io.Reader) ([]guest.NIC, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read NICs: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read NICs: more than %d bytes", maxFile)
	}
	var all interfaces
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read NICs: %w", err)
	}
	if len(all.Interfaces) == 0 {
		return nil, fmt.Errorf("read NICs: the file has none: use %s, or the output of prepare -o json", NICsFile)
	}
	var nics []guest.NIC
	for _, i := range all.Interfaces {
		nics = append(nics, i.NIC)
	}
	return nics, nil
}
