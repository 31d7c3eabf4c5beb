// Package guest says what a VM gets of one pod interface. It is pure: a NIC is
// made of what the CNI gave, travels as JSON, and is all that serving needs.
package guest

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// NIC is what the VM gets of one pod interface, whatever connects the two. The
// zero value is none. It does not depend on which of a VM's NICs has the default
// route, nor on settings of a lease: whoever serves it decides that.
type NIC struct {
	Interface string   `json:"interface"` // the pod's
	Tap       string   `json:"tap"`
	TapMAC    mac.Addr `json:"tapMAC"` // of the device in the pod, not the VM's
	MAC       mac.Addr `json:"mac"`    // the VM's
	MTU       int      `json:"mtu"`
	Queues    int      `json:"queues"`
	Guard     bool     `json:"guard"` // a port guard keeps frames apart

	// Addressed is whether the CNI gave the interface an address. If not, the network
	// has no IPAM: the VM is on it as any other host, and may have any address.
	Addressed bool `json:"addressed"`

	IPv4 *IPv4 `json:"ipv4,omitempty"` // nil: none
	IPv6 *IPv6 `json:"ipv6,omitempty"` // nil: none

	// Aliases are the addresses by which the pod's containers and the VM reach each
	// other where they share all others; none: they share none, or can't.
	Aliases []Alias `json:"aliases,omitempty"`

	// Answers are the neighbors for which the kernel answers the VM on the tap, by
	// address.
	Answers []Neighbor `json:"answers,omitempty"`
	// Omitted is what the pod has by the interface and the VM can't be given.
	Omitted []discover.Omission `json:"omitted,omitempty"`
}

// IPv4 is what the VM gets of the pod's IPv4.
type IPv4 struct {
	// Address is the VM's, with the network that is on its link; a single address
	// (/32) if there is none.
	Address netip.Prefix `json:"address"`
	// Addresses are all that the CNI gave, as it gave them, that of Address first:
	// the VM may send from each.
	Addresses []netip.Prefix `json:"addresses"`
	// Server is the DHCP server identifier (RFC 2132 section 9.7).
	Server netip.Addr `json:"server"`
	// Gateway is the pod's; zero: it has none.
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Routes are as option 121 (RFC 3442) wants them, default routes among them.
	Routes []Route `json:"routes,omitempty"`
	// HasDefault is whether the pod has a default route by the interface, though
	// Routes may be unable to say it.
	HasDefault bool `json:"hasDefault,omitempty"`
}

// IPv6 is what the VM gets of the pod's IPv6.
type IPv6 struct {
	Address netip.Prefix `json:"address"` // as the CNI gave it
	// Router is whom the VM's routes lead to; nil: the pod has none.
	Router *Router `json:"router,omitempty"`
	// Prefixes are on the link; Routes are by the router, default routes among them.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Routes   []Route        `json:"routes,omitempty"`
	// HasDefault is as that of IPv4.
	HasDefault bool `json:"hasDefault,omitempty"`
}

// Route is a route of the VM's.
type Route struct {
	Destination netip.Prefix `json:"destination"`
	Gateway     netip.Addr   `json:"gateway,omitzero"` // zero: on the link, or by the router
	MTU         int          `json:"mtu,omitempty"`    // 0: the NIC's
}

// Router is whom the VM's IPv6 routes lead to, which IPv6 knows by a link-local
// address only (RFC 4861 section 6.1.2).
type Router struct {
	LinkLocal netip.Addr `json:"linkLocal"`
	MAC       mac.Addr   `json:"mac"` // the gateway's
	// Gateway is the pod's gateway; it is LinkLocal, unless it has a global address
	// only: then who asks for LinkLocal is answered by the gateway, or for it.
	Gateway netip.Addr `json:"gateway"`
}

// Neighbor is one for which the kernel answers.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	MAC     mac.Addr   `json:"mac"`
}

// Alias is a pair of addresses, of one family, that exist within the pod alone: who is
// in the pod finds the VM at one, and the VM finds the pod at the other.
type Alias struct {
	VM  netip.Addr `json:"vm"`
	Pod netip.Addr `json:"pod"`
}

// Options are what is chosen for a NIC.
type Options struct {
	Tap     string
	TapMAC  mac.Addr
	MAC     mac.Addr // the VM's; zero: the pod's
	MTU     int      // the VM's; 0: the pod's
	Queues  int      // 0: one
	NoGuard bool
	NoIPv6  bool
	Aliases []Alias // those of families that the VM does not have are left out
}

// Same returns the NIC of a VM that takes the pod interface's place: it has its MAC,
// addresses, routes and neighbors.
func Same(in discover.Interface, o Options) NIC {
	n := NIC{
		Interface: in.Name, Tap: o.Tap, TapMAC: o.TapMAC, MAC: cmp.Or(o.MAC, in.MAC),
		MTU: cmp.Or(o.MTU, min(in.MTU, MaxMTU)), Queues: max(1, o.Queues), Guard: !o.NoGuard,
		Addressed: in.Addressed(), IPv4: newIPv4(in), Omitted: slices.Clone(in.Omitted),
	}
	if address, ok := in.IPv6(); ok && o.NoIPv6 {
		n.omit("address "+address.String(), noIPv6)
	} else if ok {
		n.IPv6 = newIPv6(in, address)
	}
	for _, a := range o.Aliases {
		if n.has(a.VM) {
			n.Aliases = append(n.Aliases, a)
		}
	}
	n.addRoutes(in)
	n.addNeighbors(in)
	return n
}

// has reports whether the VM gets addresses of the family of a.
func (n NIC) has(a netip.Addr) bool { return a.Is4() && n.IPv4 != nil || isIPv6(a) && n.IPv6 != nil }

// newIPv6 is what the VM gets of the interface's IPv6 but for routes.
func newIPv6(in discover.Interface, address netip.Prefix) *IPv6 {
	v6 := &IPv6{Address: address, HasDefault: in.HasDefaultRoute(false)}
	if g := in.Gateway6; g != nil {
		v6.Router = &Router{LinkLocal: g.Address, MAC: g.MAC, Gateway: g.Address}
		if !g.Address.IsLinkLocalUnicast() {
			v6.Router.LinkLocal = g.MAC.LinkLocal()
		}
	}
	return v6
}

func (n *NIC) omit(what, why string) {
	n.Omitted = append(n.Omitted, discover.Omission{What: what, Why: why})
}

// addNeighbors sets whom the kernel answers for: the pod's permanent neighbors, of
// which no DHCP can tell; the DHCP server if it has nobody's address, with the guard;
// the link-local address of a router for whose own it answers, too; and the pod's aliases.
func (n *NIC) addNeighbors(in discover.Interface) {
	for _, o := range in.Neighbors {
		what := "permanent neighbor " + o.Address.String()
		switch {
		case o.MAC.IsZero():
			n.omit(what, "its MAC is not an Ethernet address")
		case !n.has(o.Address):
			n.omit(what+" at "+o.MAC.String(), "the VM gets no address of its family")
		default:
			n.Answers = append(n.Answers, Neighbor{o.Address, o.MAC})
		}
	}
	if v4 := n.IPv4; v4 != nil && !v4.Gateway.IsValid() && n.Guard {
		n.Answers = append(n.Answers, Neighbor{v4.Server, n.TapMAC})
	}
	if v6 := n.IPv6; v6 != nil && v6.Router != nil && v6.Router.LinkLocal != v6.Router.Gateway && n.answersFor(v6.Router.Gateway) {
		n.Answers = append(n.Answers, Neighbor{v6.Router.LinkLocal, v6.Router.MAC})
	}
	for _, a := range n.Aliases {
		n.Answers = append(n.Answers, Neighbor{a.Pod, n.TapMAC})
	}
	slices.SortStableFunc(n.Answers, func(a, b Neighbor) int { return a.Address.Compare(b.Address) })
}

func (n NIC) answersFor(a netip.Addr) bool {
	return slices.ContainsFunc(n.Answers, func(o Neighbor) bool { return o.Address == a })
}

// RenamedRouter is the router if the VM knows it by a link-local address that it may not
// have, and that nobody answers for: the VM's questions for that are to be put to the
// gateway by its own address, so that the VM finds it wherever it is. Nil: there is none.
func (n NIC) RenamedRouter() *Router {
	if n.IPv6 == nil || n.IPv6.Router == nil {
		return nil
	}
	if r := n.IPv6.Router; r.LinkLocal != r.Gateway && !n.answersFor(r.LinkLocal) {
		return r
	}
	return nil
}

// Addresses returns all that the VM has as the CNI gave them, IPv4 first, and of
// each family that first which the VM gets by DHCP.
func (n NIC) Addresses() []netip.Prefix {
	var out []netip.Prefix
	if n.IPv4 != nil {
		out = slices.Clone(n.IPv4.Addresses)
	}
	if n.IPv6 != nil {
		out = append(out, n.IPv6.Address)
	}
	return out
}

// Advertiser returns by which addresses the VM hears of IPv6: the router's, or if
// the pod has none, those of the tap.
func (n NIC) Advertiser() (netip.Addr, mac.Addr) {
	if n.IPv6 != nil && n.IPv6.Router != nil {
		return n.IPv6.Router.LinkLocal, n.IPv6.Router.MAC
	}
	return n.TapMAC.LinkLocal(), n.TapMAC
}
