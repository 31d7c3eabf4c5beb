package prepare

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
)

// The kernel has the last word on what a record says: whoever can write to the state
// directory shall not widen the port guard by that, or have another interface
// rewired.

// confirm tells why the kernel does not bear out the record of an interface that is
// prepared, at least in part, or whether there is nothing prepared that the record
// could be about.
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
	if l != nil && l.Name != name && l.Name != p.Bridge.Uplink && !bytes.Equal(l.MAC, p.Interface.MAC) && !bytes.Equal(l.MAC, p.Bridge.UplinkMAC) {
		return false, fmt.Errorf("the link with the index %d that it names is %s, which is not %s", p.Interface.Index, l.Name, name)
	}
	guard, there := s.tables[p.guard().id()]
	if !there || p.hasAddresses(s) {
		return false, nil
	}
	for _, a := range p.Addresses() {
		if !guard.lets(a.Addr()) {
			return false, fmt.Errorf("it says that the VM has %s, which the port guard does not let it use", a.Addr())
		}
	}
	return false, nil
}

// hasAddresses tells whether the pod interface has all that the VM gets.
func (p Plan) hasAddresses(s state) bool {
	has := s.interfaces[p.Interface.Index].Addresses
	for _, want := range p.Addresses() {
		found := false
		for _, a := range has {
			found = found || a.Prefix == want
		}
		if !found {
			return false
		}
	}
	return true
}

// lets tells whether some rule of the table lets frames with that address pass.
func (n tableNow) lets(a netip.Addr) bool {
	for _, c := range n.chains {
		for _, r := range c.rules {
			if slices.ContainsFunc(r.lets, func(value []byte) bool { return bytes.Equal(value, a.AsSlice()) }) {
				return true
			}
		}
	}
	return false
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
