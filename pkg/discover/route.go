package discover

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Route is a route of the pod.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	From        netip.Prefix `json:"from,omitzero"`    // only packets from here take it; zero: all do
	Gateway     netip.Addr   `json:"gateway,omitzero"` // zero: the destination is on the link; an IPv4 route may have an IPv6 one
	Source      netip.Addr   `json:"source,omitzero"`  // preferred source
	Scope       Scope        `json:"scope"`
	OnLink      bool         `json:"onLink,omitempty"` // the gateway is reachable though no other route says so
	Table       int          `json:"table"`            // 254: main
	Type        uint8        `json:"type"`             // RTN_UNICAST, … (linux/rtnetlink.h)
	Protocol    uint8        `json:"protocol"`         // RTPROT_KERNEL, RTPROT_BOOT, …
	TOS         uint8        `json:"tos,omitempty"`    // only packets with this type of service take it; 0: all do
	Metric      int          `json:"metric,omitempty"`
	MTU         int          `json:"mtu,omitempty"`     // 0: the interface's
	Expires     bool         `json:"expires,omitempty"` // it ends by itself
	Encap       bool         `json:"encap,omitempty"`   // packets are encapsulated (MPLS, seg6, …)
	NextHop     uint32       `json:"nextHop,omitempty"` // id of the nexthop object it goes by
	Links       []int        `json:"links,omitempty"`   // indexes of the links of all its next hops
	// First is whether it comes before routes by other links that are its equals,
	// so that the kernel takes this one.
	First bool `json:"first,omitempty"`
	// Message is the kernel's own rtmsg with attributes, as in [Address].
	Message Message `json:"message"`
}

// routeTypes are ip(8)'s words for what a route does with packets (RTN_UNICAST,
// …, linux/rtnetlink.h).
var routeTypes = map[uint8]string{
	unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast",
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// String returns the route as ip-route(8) prints it, without the device: its links
// are known by their indexes. Of several next hops it says how many there are.
func (a Route) String() string {
	switch {
	case len(a.Links) > 1:
		return a.Text(fmt.Sprintf("nexthops %d", len(a.Links)))
	case !a.Gateway.IsValid():
		return a.Text()
	case a.Gateway.Is4() != a.Destination.Addr().Is4():
		return a.Text("via inet6", a.Gateway.String())
	}
	return a.Text("via", a.Gateway.String())
}

// Text returns the route as ip-route(8) takes it, with these words where it says
// where the route leads.
func (a Route) Text(leads ...string) string {
	var words []string
	if word, ok := routeTypes[a.Type]; ok {
		words = append(words, word)
	}
	if a.Destination.Bits() == 0 {
		words = append(words, "default")
	} else {
		words = append(words, a.Destination.String())
	}
	words = append(words, leads...)
	add := func(is bool, format string, value ...any) {
		if is {
			words = append(words, fmt.Sprintf(format, value...))
		}
	}
	add(a.From.IsValid(), "from %s", a.From)
	add(a.TOS != 0, "tos %#x", a.TOS)
	add(a.Table != unix.RT_TABLE_MAIN, "table %d", a.Table)
	add(a.Scope != unix.RT_SCOPE_UNIVERSE, "scope %s", a.Scope)
	add(a.Source.IsValid(), "src %s", a.Source)
	add(a.Metric != 0, "metric %d", a.Metric)
	add(a.MTU != 0, "mtu %d", a.MTU)
	add(a.OnLink, "onlink")
	return strings.Join(words, " ")
}

// place is what routes have in common of which the kernel takes the one that is
// listed first (fib_find_alias, net/ipv4/fib_trie.c).
type place struct {
	destination netip.Prefix
	table       int
	tos         uint8
	metric      int
}

// SamePlace reports whether the kernel takes that of a and b which is listed first.
// IPv6 has no such order.
func (a Route) SamePlace(b Route) bool {
	return a.Destination.Addr().Is4() && a.place() == b.place()
}

func (a Route) place() place { return place{a.Destination, a.Table, a.TOS, a.Metric} }

// markFirst finds out which of the routes are First.
func markFirst(routes []Route) {
	first := map[place]*Route{} // of all of a place
	for i := range routes {
		r := &routes[i]
		if !r.Destination.Addr().Is4() {
			continue
		}
		if f, ok := first[r.place()]; !ok {
			first[r.place()] = r
		} else if f.link() != r.link() {
			f.First = true
		}
	}
}

// link is the index of the link that a route leaves by, the first of several; 0:
// none.
func (a Route) link() int {
	if len(a.Links) == 0 {
		return 0
	}
	return a.Links[0]
}

// SharedRoute is a route that does not hang on one interface alone.
type SharedRoute struct {
	Route Route  `json:"route"`
	Why   string `json:"why"`
}

// routesOf returns the routes by an interface, and those of them and of others that
// the kernel takes away with it and nobody could put back. What the kernel makes in
// the table local comes and goes with the addresses, but the kernel puts it last.
func (k kernel) routesOf(in Interface) (own []Route, shared []SharedRoute) {
	for _, r := range k.routes {
		if r.Table == unix.RT_TABLE_LOCAL && r.Protocol == unix.RTPROT_KERNEL && !r.First {
			continue
		}
		if r.link() == in.Index {
			own = append(own, r)
		}
		if why := k.shares(r, in); why != "" {
			shared = append(shared, SharedRoute{r, why})
		}
	}
	return own, shared
}

// shares says what else than the interface a route hangs on; empty: nothing, or it
// is not by the interface. The kernel deletes a nexthop object with its link
// (nexthop_flush_dev, net/ipv4/nexthop.c).
func (k kernel) shares(r Route, in Interface) string {
	isOther := func(index int) bool { return index != in.Index }
	switch by := slices.Contains(r.Links, in.Index); {
	case by && slices.ContainsFunc(r.Links, isOther):
		return "it uses other links, too"
	case by && r.NextHop != 0:
		return fmt.Sprintf("it uses nexthop object %d, which the kernel deletes with its link", r.NextHop)
	case !by && k.onlyOn(r.Source, in):
		return fmt.Sprintf("it does not use %s, but has its address %s as source", in.Name, r.Source)
	}
	return ""
}

// onlyOn reports whether an address is the interface's and no other's, so that
// the kernel drops the routes that prefer it when the interface loses it
// (fib_sync_down_addr, net/ipv4/fib_semantics.c; rt6_remove_prefsrc,
// net/ipv6/route.c).
func (k kernel) onlyOn(a netip.Addr, in Interface) bool {
	has := func(addresses []Address) bool {
		return slices.ContainsFunc(addresses, func(other Address) bool { return other.Prefix.Addr() == a })
	}
	for link, addresses := range k.addresses {
		if link != in.Index && has(addresses) {
			return false
		}
	}
	return a.IsValid() && has(k.addresses[in.Index])
}
