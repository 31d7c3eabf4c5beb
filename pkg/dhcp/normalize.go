package dhcp

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
)

// Normalize returns the lease as it can be sent, and a note for each thing that
// was left out. It never fails: what a pod's resolv.conf holds must not cost a
// guest its start. Applied again, it changes nothing.
//
// Left out are: what is not IPv4, name servers on the pod's loopback, names
// that DNS could not carry, addresses among names, what is there twice, and
// what is more than a message could hold.
// Search domains are written in lower case without the dot at the end.
func (l Lease) Normalize() (Lease, []string) {
	var n normalize.Notes
	l.Router = l.Router.Unmap()
	l.Server = l.Server.Unmap()
	l.Address = unmapPrefix(l.Address)
	l.Routes = normalize.List(&n, "%v", math.MaxInt, l.Routes, readRoute)
	l.DNS = n.Servers("DNS server %v", l.DNS, false)
	l.NTP = n.Servers("NTP server %v", l.NTP, false)
	l.Search = n.Search(l.Search)
	l.Hostname = n.Hostname(l.Hostname)
	l.BootFiles = slices.Clone(l.BootFiles)
	l.Options = lastOptions(&n, l.Options)
	if l.Router.IsValid() && len(l.Routes) > 0 && !slices.ContainsFunc(l.Routes, isDefault) {
		n = append(n, fmt.Sprintf("router %v: clients that use the classless static routes ignore it, and those hold no default route", l.Router))
	}
	return l, n
}

func readRoute(r Route) (Route, string) {
	r = Route{Destination: unmapPrefix(r.Destination).Masked(), Gateway: r.Gateway.Unmap()}
	switch {
	case !r.Destination.IsValid():
		return r, "it has no destination"
	case !r.Destination.Addr().Is4() || r.Gateway.IsValid() && !r.Gateway.Is4():
		return r, "it is not IPv4"
	case r.Gateway == netip.IPv4Unspecified():
		r.Gateway = netip.Addr{} // how it is written on the wire
	}
	return r, ""
}

// lastOptions keeps the last of each code: a later one overrides.
func lastOptions(n *normalize.Notes, options []Option) []Option {
	var out []Option
	for i, o := range options {
		later := slices.ContainsFunc(options[i+1:], func(p Option) bool { return p.Code == o.Code })
		if later {
			n.Add("a later one overrides it", "option %d = %x", o.Code, o.Value)
			continue
		}
		out = append(out, o)
	}
	return out
}

func isDefault(r Route) bool { return r.Destination.Bits() == 0 }

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
