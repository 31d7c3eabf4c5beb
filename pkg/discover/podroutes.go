package discover

import (
	"cmp"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// PodRoutes returns the routes by the interface that packets from its addresses
// take, and that the CNI gave, the best first: those of the table main and of the
// tables that a rule leads these packets to (ip-rule(8)), as the CNI plugin sbr
// makes them. Several may lead to one destination.
func (i Interface) PodRoutes() []Route {
	var out []Route
	for _, r := range i.Routes {
		if i.tableRank(r) >= 0 && r.Type == unix.RTN_UNICAST && !i.routerMade(r) {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b Route) int {
		return cmp.Or(cmp.Compare(i.tableRank(a), i.tableRank(b)), cmp.Compare(a.Metric, b.Metric))
	})
	return out
}

// HasDefaultRoute reports whether the pod's packets of a family leave by the
// interface if no narrower route says otherwise.
func (i Interface) HasDefaultRoute(ipv4 bool) bool {
	return slices.ContainsFunc(i.PodRoutes(), func(r Route) bool {
		return r.Destination.Bits() == 0 && r.Destination.Addr().Is4() == ipv4
	})
}

// WidestGateway returns the gateway of the widest of the routes, that of the first of
// several; zero: none has one.
func WidestGateway(routes []Route) netip.Addr {
	var widest Route
	for _, r := range routes {
		if r.Gateway.IsValid() && (!widest.Gateway.IsValid() || r.Destination.Bits() < widest.Destination.Bits()) {
			widest = r
		}
	}
	return widest.Gateway
}

// tableRank is the place of a route's table among those that packets from the
// interface's address look into; -1: they don't.
func (i Interface) tableRank(r Route) int {
	tables := i.tablesOf(r.Destination.Addr().Is6())
	if len(tables) == 0 {
		tables = []int{unix.RT_TABLE_MAIN}
	}
	return slices.Index(tables, r.Table)
}

// routerMade reports whether the kernel made a route of a router's advertisement:
// a way (RTPROT_RA), or that a prefix is on the link, which the kernel calls its
// own as it does that of an address.
func (i Interface) routerMade(r Route) bool {
	if r.Protocol == unix.RTPROT_RA {
		return true
	}
	if !r.Destination.Addr().Is6() || r.Protocol != unix.RTPROT_KERNEL || r.Type != unix.RTN_UNICAST || r.Gateway.IsValid() {
		return false
	}
	isPrefixOf := func(a Address) bool { return a.Prefix.Masked() == r.Destination }
	if slices.ContainsFunc(i.Addresses, func(a Address) bool { return isPrefixOf(a) && !a.FromRouter() }) {
		return false
	}
	return r.Expires || slices.ContainsFunc(i.Addresses, isPrefixOf)
}

// tables returns the tables that packets from an address look into, in the order of
// the rules; nil where that is main alone.
func (k kernel) tables(from netip.Addr) []int {
	var tables []int
	for _, r := range k.rules {
		leads := r.table != 0 && !r.selective && r.table != unix.RT_TABLE_LOCAL && (!r.from.IsValid() || r.from.Contains(from))
		if leads && r.ipv6 == from.Is6() && !slices.Contains(tables, r.table) && k.hasRoutes(r.table, r.ipv6) {
			tables = append(tables, r.table)
		}
	}
	if slices.Equal(tables, []int{unix.RT_TABLE_MAIN}) {
		return nil
	}
	return tables
}

// hasRoutes reports whether there is anything in a table. The table default,
// which a rule leads to in every namespace, is empty.
func (k kernel) hasRoutes(table int, ipv6 bool) bool {
	return table == unix.RT_TABLE_MAIN || slices.ContainsFunc(k.routes, func(r Route) bool {
		return r.Table == table && r.Destination.Addr().Is6() == ipv6
	})
}
