package prestart

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// LeaseSettings are what the VM is told beyond what the CNI gave the pod. The
// zero value adds nothing.
type LeaseSettings struct {
	Duration time.Duration // 0: infinite, so that the VM never depends on the server
	// DefaultRoute is the interface whose NIC is given the default routes; empty:
	// for each of IPv4 and IPv6 the first that has one, NoDefaultRoute: none.
	DefaultRoute string
	Hostname     string       // empty: the pod's
	DNS          []netip.Addr // none: the pod's
	Search       []string     // none: the pod's
	NTP          []netip.Addr
	TFTPServer   string        // has the boot files that are no URLs
	BootFiles    netboot.Files // of each kind of firmware
	Options      []dhcp.Option // of DHCPv4
}

// minMTU is the least that a guest can be told (RFC 2132 section 5.1); a route may
// have less.
const minMTU = 68

// NoDefaultRoute is for [LeaseSettings.DefaultRoute].
const NoDefaultRoute = "none"

// defaultRoutes name the interfaces whose NICs get the default route of IPv4 and
// of IPv6; empty: none does.
type defaultRoutes struct{ ipv4, ipv6 string }

// hasDefaultRoute tells which NIC gets the default route: for each family the
// first interface that has one, or the named one alone. Only one does: a VM with
// two of them would answer by the wrong one.
func (s LeaseSettings) hasDefaultRoute(plans []prepare.Plan) (d defaultRoutes, err error) {
	var names []string
	for _, p := range plans {
		names = append(names, p.Interface.Name)
	}
	if s.DefaultRoute == NoDefaultRoute || len(names) == 0 {
		return defaultRoutes{}, nil
	}
	if err := s.checkDefaultRoute(names); err != nil {
		return defaultRoutes{}, err
	}
	for _, p := range plans {
		in := p.Interface
		if s.DefaultRoute != "" && s.DefaultRoute != in.Name {
			continue
		}
		if d.ipv4 == "" && in.HasDefaultRoute(true) {
			d.ipv4 = in.Name
		}
		if d.ipv6 == "" && in.HasDefaultRoute(false) {
			d.ipv6 = in.Name
		}
	}
	return d, nil
}

// defaultRouteOf is hasDefaultRoute for plans that are recorded. The interface with
// the default route may be another one, which is not served now but is the same VM's:
// what a VM is told does not depend on which of its interfaces a call is about.
func (h Hook) defaultRouteOf(plans []prepare.Plan) (defaultRoutes, error) {
	recorded, err := prepare.ReadPlans(h.Log, h.StateDir)
	if err != nil {
		return defaultRoutes{}, err
	}
	if h.Lease.DefaultRoute != "" || len(recorded) == 0 {
		return h.Lease.hasDefaultRoute(plans)
	}
	d, err := h.Lease.hasDefaultRoute(recorded)
	names := namesOf(plans)
	for family, name := range map[string]string{"IPv4": d.ipv4, "IPv6": d.ipv6} {
		if name != "" && !slices.Contains(names, name) {
			h.Log.Info("these interfaces get no default route, since another one has it", "interfaces", names, "family", family, "other", name)
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
	return fmt.Errorf("default route: %s is none of the VM's interfaces; name one of them, or %s", name, NoDefaultRoute)
}

// newLease makes the lease for one interface of the pod, with the default route
// or without. ok is false if the CNI gave the interface no IPv4 address, so
// that there is nothing to lease.
func newLease(p prepare.Plan, pod discover.Pod, defaultRoute bool, s LeaseSettings) (l dhcp.Lease, ok bool) {
	address, ok := p.Interface.IPv4()
	if !ok {
		return dhcp.Lease{}, false
	}
	prefix := guestPrefix(p.Interface, address)
	routes, mtu := leaseRoutes(p, prefix, defaultRoute)
	dns, search := s.resolver(pod)
	ntp := s.NTP
	if p.IPv6 != nil { // servers with an IPv6 address are told of by DHCPv6
		dns, ntp = ofFamily(dns, netip.Addr.Is4), ofFamily(ntp, netip.Addr.Is4)
	}
	l = dhcp.Lease{
		MAC: p.MAC, Address: prefix, Server: p.ServerIdentifier(), Routes: routes, MTU: mtu,
		DNS: dns, Search: search, NTP: ntp,
		Hostname: cmp.Or(s.Hostname, pod.Hostname), Duration: s.Duration,
		TFTPServer: s.TFTPServer, BootFiles: s.BootFiles, Options: s.Options,
	}
	for _, r := range routes {
		if r.Destination.Bits() == 0 {
			l.Router = r.Gateway
		}
	}
	return l, true
}

// resolver is the DNS that the VM is told of.
func (s LeaseSettings) resolver(pod discover.Pod) (servers []netip.Addr, search []string) {
	servers, search = pod.DNS.Servers, pod.DNS.Search
	if len(s.DNS) > 0 {
		servers = s.DNS
	}
	if len(s.Search) > 0 {
		search = s.Search
	}
	return servers, search
}

// ofFamily returns the addresses of a family that the guest is told of along
// with the other one.
func ofFamily(addresses []netip.Addr, is func(netip.Addr) bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return !is(a.Unmap()) })
}

// guestPrefix is the address with the prefix that the guest may believe to be on
// its link: that of the address where the pod has such a route, else the
// address alone. Point-to-point CNIs take that route away, since they reach
// the pod's neighbours by the gateway only.
//
// A network of which the pod or a gateway has the first or the last address, as in
// each /31 (RFC 3021), is a route on the link instead: many clients take the last
// one for the broadcast address whatever the length, and old kernels the first.
func guestPrefix(in discover.Interface, address netip.Prefix) netip.Prefix {
	alone := single(address.Addr())
	network := address.Masked()
	connected := false
	for _, r := range in.PodRoutes() {
		if !usable(r) {
			continue
		}
		connected = connected || !r.Gateway.IsValid() && r.Destination == network && network.Bits() > 0
		if isEnd(r.Gateway, network) {
			return alone
		}
	}
	if !connected || isEnd(address.Addr(), network) {
		return alone
	}
	return address
}

// isEnd reports whether an address is the first or the last of its network.
func isEnd(a netip.Addr, network netip.Prefix) bool {
	return network.Contains(a) && (a == network.Addr() || !network.Contains(a.Next()))
}

// usable reports whether a route can be told by DHCP: an ordinary IPv4 one.
func usable(r discover.Route) bool {
	return r.Destination.Addr().Is4() && peculiarity(r) == ""
}

// leaseRoutes returns the pod's routes as option 121 wants them (RFC 3442):
// those on the link first, since a gateway must be reachable when a client
// adds its route; then the narrower before the wider, the default route last.
// The MTU is the interface's, or what the CNI put on the default route.
//
// Gateways and the server that are not in the address's network have routes of
// their own, though a wider one may lead there: dhcpcd 9 takes those on the link
// for routes to one host (decode_rfc3442_rt) until it renews.
func leaseRoutes(p prepare.Plan, onLink netip.Prefix, defaultRoute bool) ([]dhcp.Route, int) {
	mtu := p.MTU
	var routes []dhcp.Route
	add := func(destination netip.Prefix, gateway netip.Addr) {
		if !slices.ContainsFunc(routes, func(r dhcp.Route) bool { return r.Destination == destination }) {
			routes = append(routes, dhcp.Route{Destination: destination, Gateway: gateway})
		}
	}
	for _, r := range p.Interface.PodRoutes() {
		// What follows from the address and its mask needs no word.
		if !usable(r) || r.Destination == onLink.Masked() {
			continue
		}
		if r.Destination.Bits() == 0 {
			if !defaultRoute {
				continue
			}
			if r.MTU >= minMTU {
				mtu = min(mtu, r.MTU)
			}
		}
		add(destinationFor(onLink.Addr(), r.Destination), r.Gateway)
	}
	hops := []netip.Addr{p.ServerIdentifier()}
	for _, r := range routes {
		if r.Gateway.IsValid() {
			hops = append(hops, r.Gateway)
		}
	}
	for _, hop := range hops {
		if !onLink.Contains(hop) {
			add(single(hop), netip.Addr{})
		}
	}
	slices.SortStableFunc(routes, func(a, b dhcp.Route) int {
		return cmp.Or(
			cmp.Compare(rank(a), rank(b)),
			cmp.Compare(b.Destination.Bits(), a.Destination.Bits()),
			a.Destination.Addr().Compare(b.Destination.Addr()))
	})
	return routes, mtu
}

// destinationFor is a route's destination as a guest is told of it: of a /31 with
// its own address the other one.
func destinationFor(own netip.Addr, destination netip.Prefix) netip.Prefix {
	switch {
	case destination.Bits() != own.BitLen()-1 || !destination.Contains(own):
		return destination
	case own == destination.Addr():
		return single(own.Next())
	}
	return single(own.Prev())
}

// rank orders on-link routes before those by a gateway.
func rank(r dhcp.Route) int {
	if r.Gateway.IsValid() {
		return 1
	}
	return 0
}
