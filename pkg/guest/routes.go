package guest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

const (
	noIPv6 = "the VM gets no IPv6"
	noIPv4 = "the VM gets no IPv4 address here, and so nothing else by DHCP"
)

// addRoutes gives the VM the best of the pod's routes to each destination, and says
// which it can't have, or not with all that they say.
func (n *NIC) addRoutes(in discover.Interface) {
	best := map[netip.Prefix]discover.Route{}
	for _, r := range in.PodRoutes() {
		to := r.Destination.Addr()
		if to.Is6() && (to.IsLinkLocalUnicast() || to.IsMulticast()) { // every IPv6 link has them
			continue
		}
		why := inexpressible(r)
		better, seen := best[r.Destination]
		switch {
		case to.Is4() && n.IPv4 == nil:
			why = noIPv4
		case to.Is6() && n.IPv6 == nil:
			why = noIPv6
		case why != "":
		case seen && better.Gateway == r.Gateway: // as in another table: it is this one's equal
			continue
		case seen:
			why = "there is a better one to the same destination"
		case to.Is4():
			n.IPv4.add(r)
		default:
			why = n.IPv6.add(r, in)
		}
		if !seen && inexpressible(r) == "" {
			best[r.Destination] = r
		}
		if why != "" {
			n.omit("route "+r.String(), why)
		} else if why := n.settingOmitted(r); why != "" {
			n.omit("a setting of route "+r.String(), why)
		}
	}
	for _, a := range n.Aliases { // a gateway passes on what is for the pod, too: it goes by the tap
		if a.Pod.Is4() && !n.IPv4.HasDefault {
			n.IPv4.addRoute(Route{Destination: single(a.Pod)})
		} else if a.Pod.Is6() && !n.IPv6.HasDefault {
			n.IPv6.Prefixes = append(n.IPv6.Prefixes, single(a.Pod))
		}
	}
	if n.IPv4 != nil {
		n.IPv4.completeRoutes()
	}
	if n.IPv6 != nil {
		slices.SortFunc(n.IPv6.Routes, narrowFirst)
	}
}

// inexpressible says what of a route neither DHCP nor a router advertisement can
// express. Told without it the VM's packets would go where the pod's don't. Empty:
// nothing.
func inexpressible(r discover.Route) string {
	switch {
	case r.Gateway.IsValid() && r.Gateway.Is4() != r.Destination.Addr().Is4():
		return fmt.Sprintf("its gateway %s is of the other address family", r.Gateway)
	case r.TOS != 0:
		return fmt.Sprintf("it applies only to packets with the type of service %#x", r.TOS)
	case r.From.IsValid():
		return fmt.Sprintf("it applies only to packets from %s", r.From)
	case r.Destination.Addr().Is6() && r.Destination.Bits() == 0 && !r.Gateway.IsValid():
		return "it is a default route without a gateway, which a router advertisement can't express"
	case r.Encap:
		return "it encapsulates packets"
	}
	return ""
}

// settingOmitted says which setting of a route that the VM gets it does not get;
// empty: none.
func (n *NIC) settingOmitted(r discover.Route) string {
	own := func() netip.Addr {
		if r.Destination.Addr().Is4() {
			return n.IPv4.Address.Addr()
		}
		return n.IPv6.Address.Addr()
	}
	switch {
	case r.MTU != 0 && r.MTU < n.MTU && r.Destination.Bits() > 0:
		return fmt.Sprintf("its MTU is %d, and the VM gets one MTU for all routes", r.MTU)
	case r.MTU != 0 && r.MTU < MinMTU:
		return fmt.Sprintf("its MTU is %d, which is too small for the VM", r.MTU)
	case r.Source.IsValid() && r.Source != own():
		return fmt.Sprintf("its packets have the source %s, and the VM gets one address", r.Source)
	}
	return ""
}

// add adds a route that has no better one. What follows from the address and its
// mask needs no word.
func (v *IPv4) add(r discover.Route) {
	if r.Destination != v.Address.Masked() {
		v.addRoute(Route{Destination: destinationFor(v.Address.Addr(), r.Destination), Gateway: r.Gateway, MTU: mtuOf(r)})
	}
}

func (v *IPv4) addRoute(r Route) {
	if !slices.ContainsFunc(v.Routes, func(o Route) bool { return o.Destination == r.Destination }) {
		v.Routes = append(v.Routes, r)
	}
}

// completeRoutes brings the routes in the order that option 121 wants (RFC 3442):
// those on the link first, since a gateway must be reachable when a client adds its
// route; then the narrower before the wider, the default route last.
//
// Gateways and the server that are not in the address's network have routes of
// their own, though a wider one may lead there: dhcpcd 9 takes those on the link
// for routes to one host (decode_rfc3442_rt) until it renews.
func (v *IPv4) completeRoutes() {
	hops := []netip.Addr{v.Server}
	for _, r := range v.Routes {
		if r.Gateway.IsValid() {
			hops = append(hops, r.Gateway)
		}
	}
	for _, hop := range hops {
		if !v.Address.Contains(hop) {
			v.addRoute(Route{Destination: single(hop)})
		}
	}
	byGateway := func(r Route) int {
		if r.Gateway.IsValid() {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(v.Routes, func(a, b Route) int { return cmp.Or(byGateway(a)-byGateway(b), narrowFirst(a, b)) })
}

// destinationFor is a route's destination as a VM is told of it: of a /31 with its
// own address the other one.
func destinationFor(own netip.Addr, destination netip.Prefix) netip.Prefix {
	switch {
	case destination.Bits() != own.BitLen()-1 || !destination.Contains(own):
		return destination
	case own == destination.Addr():
		return single(own.Next())
	}
	return single(own.Prev())
}

// add adds a route that has no better one, or says why the VM can't have it; empty:
// it does, or the kernel makes it of an address.
func (v *IPv6) add(r discover.Route, in discover.Interface) (why string) {
	isOwn := func(a discover.Address) bool { return single(a.Prefix.Addr()) == r.Destination }
	switch {
	case r.Gateway.IsValid() && v.Router == nil:
		return fmt.Sprintf("its gateway %s does not answer", r.Gateway)
	case r.Gateway.IsValid() && r.Gateway != v.Router.Gateway:
		return fmt.Sprintf("the VM gets one IPv6 router, and that is %s", v.Router.Gateway)
	case r.Gateway.IsValid():
		v.Routes = append(v.Routes, Route{Destination: r.Destination, MTU: mtuOf(r)})
	case !slices.ContainsFunc(in.Addresses, isOwn):
		v.Prefixes = append(v.Prefixes, r.Destination)
	}
	return ""
}

// mtuOf is a route's MTU if a VM can be told of it, else 0.
func mtuOf(r discover.Route) int {
	if r.MTU < MinMTU {
		return 0
	}
	return r.MTU
}

func narrowFirst(a, b Route) int {
	return cmp.Or(cmp.Compare(b.Destination.Bits(), a.Destination.Bits()), a.Destination.Addr().Compare(b.Destination.Addr()))
}
