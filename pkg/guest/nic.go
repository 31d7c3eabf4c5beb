// Package guest says what a VM gets of one pod interface. It is pure: a NIC is
// made of what the CNI gave, travels as JSON, and is all that serving needs.
package guest

import (
	"net/netip"

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

	IPv4 *IPv4 `json:"ipv4,omitempty"` // nil: none
	IPv6 *IPv6 `json:"ipv6,omitempty"` // nil: none

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
}

// IPv6 is what the VM gets of the pod's IPv6.
type IPv6 struct {
	Address netip.Prefix `json:"address"` // as the CNI gave it
	// Router is whom the VM's routes lead to; nil: the pod has none.
	Router *Router `json:"router,omitempty"`
	// Prefixes are on the link; Routes are by the router, default routes among them.
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Routes   []Route        `json:"routes,omitempty"`
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
	// only: then the kernel answers for LinkLocal.
	Gateway netip.Addr `json:"gateway"`
}

// Neighbor is one for which the kernel answers.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	MAC     mac.Addr   `json:"mac"`
}
