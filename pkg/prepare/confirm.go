package prepare

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/podside"
)

// The kernel has the last word on what a record says: whoever can write to the state
// directory, and no more than that, shall not widen the port guard by it.

// confirm tells why the kernel does not bear out the record: nothing is prepared that
// it could be about, or the VM has an address in it that the pod has not given it.
func (p Plan) confirm(s *engine.State) (isLeftover bool, err error) {
	name, l := p.Interface.Name, s.ByIndex(p.Interface.Index)
	if !p.hasLinks(s) {
		switch {
		case l == nil && asByCNI(s, name):
			return true, fmt.Errorf("it describes the interface %s with index %d, which no longer exists", name, p.Interface.Index)
		case l != nil && l.Name == name && asByCNI(s, name) && !p.hasAddresses(s):
			return true, fmt.Errorf("%s does not have the addresses in it", name)
		case l != nil && l.Name == name && asByCNI(s, name) && !p.touched(s): // as after a kill before the first change, or after the last one back
			if more := podside.Unplanned(p.Interface, s.Interfaces[p.Interface.Index]); more != "" {
				return true, fmt.Errorf("%s has got the %s since", name, more)
			}
		}
	}
	if p.hasAddresses(s) {
		return false, nil
	}
	// A guard that somebody has damaged is made whole again: it lets nothing pass, or
	// not all that it should, but no other address.
	var given []netip.Addr
	for _, t := range p.wiring.Tables() {
		given = append(given, s.Tables[t.ID()].Accepted(guard.FromGuestChain)...)
	}
	for _, a := range p.NIC().Addresses() {
		others := slices.ContainsFunc(given, func(g netip.Addr) bool { return g.Is4() == a.Addr().Is4() })
		if others && !slices.Contains(given, a.Addr()) && !s.Interfaces[s.Index(name)].Has(a) {
			return false, fmt.Errorf("it gives the VM the address %s, which the port guard blocks", a.Addr())
		}
	}
	return false, nil
}

// hasAddresses tells whether the pod interface has all that the VM gets.
func (p Plan) hasAddresses(s *engine.State) bool {
	return !slices.ContainsFunc(p.NIC().Addresses(), func(want netip.Prefix) bool { return !s.Interfaces[p.Interface.Index].Has(want) })
}
