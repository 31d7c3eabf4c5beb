package prepare

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// The kernel has the last word on what a record says: whoever can write to the state
// directory, and no more than that, shall not widen the port guard by it.

// confirm tells why the kernel does not bear out the record: nothing is prepared that
// it could be about, or the VM has an address in it that the pod has not given it.
func (p Plan) confirm(s state) (isLeftover bool, err error) {
	name, l := p.Interface.Name, s.linkByIndex(p.Interface.Index)
	if !p.hasLinks(s) {
		switch {
		case l == nil && s.asByCNI(name):
			return true, fmt.Errorf("it is of an interface %s with index %d, which is gone", name, p.Interface.Index)
		case l != nil && l.Name == name && !p.hasAddresses(s):
			return true, fmt.Errorf("%s has not the addresses that it says", name)
		}
	}
	if p.hasAddresses(s) {
		return false, nil
	}
	// A guard that somebody has damaged is made whole again: it lets nothing pass, or
	// not all that it should, but no other address.
	given := s.tables[p.guard().id()].chains[guardFirstChain].lets()
	for _, a := range p.Addresses() {
		others := slices.ContainsFunc(given, func(g netip.Addr) bool { return g.Is4() == a.Addr().Is4() })
		if others && !slices.Contains(given, a.Addr()) && !s.placeholderHas(name, a) {
			return false, fmt.Errorf("it says that the VM has %s, which the port guard does not let it use", a.Addr())
		}
	}
	return false, nil
}

// placeholderHas tells whether what has the pod interface's name has the address.
func (s state) placeholderHas(name string, a netip.Prefix) bool {
	l := s.link(name)
	return l != nil && hasPrefix(s.interfaces[l.Index], a)
}

func hasPrefix(in discover.Interface, want netip.Prefix) bool {
	return slices.ContainsFunc(in.Addresses, func(a discover.Address) bool { return a.Prefix == want })
}

// hasAddresses tells whether the pod interface has all that the VM gets.
func (p Plan) hasAddresses(s state) bool {
	return !slices.ContainsFunc(p.Addresses(), func(want netip.Prefix) bool { return !hasPrefix(s.interfaces[p.Interface.Index], want) })
}

// lets returns the addresses with which the chain lets frames pass.
func (n chainNow) lets() (addresses []netip.Addr) {
	for _, r := range n.rules {
		for _, value := range r.lets {
			if a, ok := netip.AddrFromSlice(value); ok && !a.IsUnspecified() {
				addresses = append(addresses, a)
			}
		}
	}
	return addresses
}

// letsOf returns the values that frames have to have somewhere for the rule to let
// them pass.
func letsOf(exprs []expr.Any) (values [][]byte) {
	accepts := false
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Verdict:
			accepts = e.Kind == expr.VerdictAccept
		case *expr.Cmp:
			if e.Op == expr.CmpOpEq {
				values = append(values, e.Data)
			}
		}
	}
	if !accepts {
		return nil
	}
	return values
}
