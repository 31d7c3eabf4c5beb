package guest

import "slices"

// Clone is the ports without anything that they share with p.
func (p Ports) Clone() Ports { return Ports{slices.Clone(p.TCP), slices.Clone(p.UDP)} }

// Clone is the NIC without anything that it shares with n.
func (n NIC) Clone() NIC {
	if n.IPv4 != nil {
		v := *n.IPv4
		v.Addresses, v.Routes = slices.Clone(v.Addresses), slices.Clone(v.Routes)
		n.IPv4 = &v
	}
	if n.IPv6 != nil {
		v := *n.IPv6
		if v.Router != nil {
			v.Router = new(*v.Router)
		}
		v.Prefixes, v.Routes = slices.Clone(v.Prefixes), slices.Clone(v.Routes)
		n.IPv6 = &v
	}
	n.Aliases, n.Answers, n.Omitted = slices.Clone(n.Aliases), slices.Clone(n.Answers), slices.Clone(n.Omitted)
	return n
}
