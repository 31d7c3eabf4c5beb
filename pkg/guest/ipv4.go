package guest

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// newIPv4 is what the VM gets of the interface's IPv4 but for routes; nil: it has
// none.
func newIPv4(in discover.Interface) *IPv4 {
	address, ok := in.IPv4()
	if !ok {
		return nil
	}
	routes := slices.DeleteFunc(in.PodRoutes(), func(r discover.Route) bool { return !r.Destination.Addr().Is4() || inexpressible(r) != "" })
	v4 := &IPv4{
		Address: onLink(routes, address), Addresses: []netip.Prefix{address}, Gateway: discover.WidestGateway(routes),
		HasDefault: in.HasDefaultRoute(true),
	}
	for _, a := range in.Addresses {
		if isHost4(a.Prefix.Addr()) && a.Global() && a.Prefix != address {
			v4.Addresses = append(v4.Addresses, a.Prefix)
		}
	}
	v4.Server = cmp.Or(v4.Gateway, nobodysAddress(in))
	return v4
}

// isHost4 reports whether a is an IPv4 address that a host can have.
func isHost4(a netip.Addr) bool { return a.Is4() && normalize.IsHost(a) }

// onLink is the address with the prefix that the VM may believe to be on its link:
// that of the address where the pod has such a route, else the address alone.
// Point-to-point CNIs take that route away, since they reach the pod's neighbors by
// the gateway only.
//
// A network of which the pod or a gateway has the first or the last address, as in
// each /31 (RFC 3021), is a route on the link instead: many clients take the last
// one for the broadcast address whatever the length, and old kernels the first.
func onLink(routes []discover.Route, address netip.Prefix) netip.Prefix {
	network := address.Masked()
	connected := slices.ContainsFunc(routes, func(r discover.Route) bool { return !r.Gateway.IsValid() && r.Destination == network })
	atEnd := slices.ContainsFunc(routes, func(r discover.Route) bool { return isEnd(r.Gateway, network) })
	if !connected || atEnd || isEnd(address.Addr(), network) || network.Bits() == 0 {
		return single(address.Addr())
	}
	return address
}

// isEnd reports whether an address is the first or the last of its network.
func isEnd(a netip.Addr, network netip.Prefix) bool {
	return network.Contains(a) && (a == network.Addr() || !network.Contains(a.Next()))
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// identifiers are addresses that no host takes of itself (RFC 3927 section 2.1).
var identifiers = []netip.Addr{netip.AddrFrom4([4]byte{169, 254, 0, 1}), netip.AddrFrom4([4]byte{169, 254, 255, 1})}

// nobodysAddress is the server identifier in a network without a gateway, whom the
// VM would resolve anyway. It follows from the interface, so that it is the same
// after a restart.
func nobodysAddress(in discover.Interface) netip.Addr {
	for _, a := range identifiers {
		if !isNear(in, a) {
			return a
		}
	}
	return identifiers[0]
}

// isNear reports whether an address may be somebody's on the interface's link. A
// whole 169.254.0.0/16 there says nothing: of that one hosts choose others.
func isNear(in discover.Interface, a netip.Addr) bool {
	const linkLocal = 16
	return slices.ContainsFunc(in.Addresses, func(o discover.Address) bool {
		return o.Prefix.Contains(a) && (o.Prefix.Bits() > linkLocal || o.Prefix.Addr() == a)
	}) || slices.ContainsFunc(in.Routes, func(r discover.Route) bool {
		return r.Destination.Bits() > linkLocal && r.Destination.Contains(a)
	})
}
