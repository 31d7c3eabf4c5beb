package prestart

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// NoDefaultRoute is for [LeaseSettings.DefaultRoute].
const NoDefaultRoute = "none"

// defaultRoutes name the interfaces whose NICs get the default route of IPv4 and
// of IPv6; empty: none does.
type defaultRoutes struct{ ipv4, ipv6 string }

// hasDefaultRoute tells which NIC gets the default route: for each family the
// first that has one, or the named one alone. Only one does: a VM with two of them
// would answer by the wrong one.
func (s LeaseSettings) hasDefaultRoute(nics []guest.NIC) (d defaultRoutes, err error) {
	if s.DefaultRoute == NoDefaultRoute || len(nics) == 0 {
		return defaultRoutes{}, nil
	}
	if err := s.checkDefaultRoute(namesOf(nics)); err != nil {
		return defaultRoutes{}, err
	}
	for _, n := range nics {
		if s.DefaultRoute != "" && s.DefaultRoute != n.Interface {
			continue
		}
		if d.ipv4 == "" && n.IPv4 != nil && n.IPv4.HasDefault {
			d.ipv4 = n.Interface
		}
		if d.ipv6 == "" && n.IPv6 != nil && n.IPv6.HasDefault {
			d.ipv6 = n.Interface
		}
	}
	return d, nil
}

// defaultRouteOf is hasDefaultRoute for NICs of which some are recorded. The one with the
// default route may be another, which is not served now but is the same VM's: what a
// VM is told does not depend on which of its interfaces a call is about.
func (h Hook) defaultRouteOf(nics []guest.NIC, recorded []prepare.Plan) (defaultRoutes, error) {
	if h.Lease.DefaultRoute != "" || len(recorded) == 0 {
		return h.Lease.hasDefaultRoute(nics)
	}
	known := namesOf(nicsOf(recorded))
	all := slices.DeleteFunc(slices.Clone(nics), func(n guest.NIC) bool { return slices.Contains(known, n.Interface) })
	all = append(all, nicsOf(recorded)...) // what is served without a record was there before those
	d, err := h.Lease.hasDefaultRoute(all)
	for family, name := range map[string]string{"IPv4": d.ipv4, "IPv6": d.ipv6} {
		if name != "" && !slices.Contains(namesOf(nics), name) {
			h.Log.Info("another interface has the default route, but is not served now", "family", family, "interface", name)
		}
	}
	return d, err
}

// checkDefaultRoute refuses a default route by none of the VM's interfaces.
func (s LeaseSettings) checkDefaultRoute(interfaces []string) error {
	name := s.DefaultRoute
	if name == "" || name == NoDefaultRoute || slices.Contains(interfaces, name) {
		return nil
	}
	return fmt.Errorf("default route: %s is not one of the VM's interfaces; name one of them, or %s", name, NoDefaultRoute)
}

// omitted are the default routes of the pod by the interface that its NIC is not
// given.
func (d defaultRoutes) omitted(n guest.NIC) (out []discover.Omission) {
	add := func(family, has string, router netip.Addr, routes []guest.Route) {
		why := fmt.Sprintf("the VM has the default route of %s by %s", family, has)
		if has == "" {
			why = "no NIC of the VM is to have the default route of " + family
		}
		for _, r := range routes {
			if r.Destination.Bits() > 0 || has == n.Interface {
				continue
			}
			what := "route default"
			if gateway := cmp.Or(r.Gateway, router); gateway.IsValid() {
				what += " via " + gateway.String()
			}
			out = append(out, discover.Omission{What: what, Why: why})
		}
	}
	if v4 := n.IPv4; v4 != nil {
		add("IPv4", d.ipv4, netip.Addr{}, v4.Routes)
	}
	if v6 := n.IPv6; v6 != nil && v6.Router != nil {
		add("IPv6", d.ipv6, v6.Router.Gateway, v6.Routes)
	}
	return out
}
