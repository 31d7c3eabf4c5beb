package prepare

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// identifiers are addresses that no host takes of itself (RFC 3927 section 2.1).
var identifiers = []netip.Addr{netip.AddrFrom4([4]byte{169, 254, 0, 1}), netip.AddrFrom4([4]byte{169, 254, 255, 1})}

// ServerIdentifier is the address by which the VM knows its DHCP server
// (RFC 2132 section 9.7), and sends its renewals to. It is the pod's gateway,
// whom the VM resolves anyway. A network without one has an address that nobody
// else has; with the guard the kernel answers the VM for it, on the tap alone.
// It follows from the interface, so that it is the same after a restart, however
// the server is started.
func (p Plan) ServerIdentifier() netip.Addr {
	if gateway, ok := p.Interface.GatewayIPv4(); ok {
		return gateway
	}
	for _, a := range identifiers {
		if !isNear(p.Interface, a) {
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

// answered4 are those for whom the kernel answers the VM's ARP requests.
func (p Plan) answered4() []discover.Neighbor {
	var out []discover.Neighbor
	for _, n := range p.neighbors() {
		if n.Address.Is4() {
			out = append(out, n)
		}
	}
	if _, ok := p.Interface.GatewayIPv4(); !ok && p.Guard {
		out = append(out, discover.Neighbor{Address: p.ServerIdentifier(), MAC: p.Tap.MAC})
	}
	return out
}
