package prestart

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// newLease6 makes the DHCPv6 lease for one interface of the pod. ok is false if
// the VM gets no IPv6 there.
func newLease6(p prepare.Plan, pod discover.Pod, s LeaseSettings) (l dhcp6.Lease, ok bool) {
	if p.IPv6 == nil {
		return dhcp6.Lease{}, false
	}
	server, _ := routerOf(p)
	dns, search := s.resolver6(p, pod)
	return dhcp6.Lease{
		MAC: p.MAC, Address: p.IPv6.Address.Addr(), Server: server, DNS: dns, Search: search, NTP: s.ntp6(p),
		Hostname: cmp.Or(s.Hostname, pod.Hostname), Valid: s.Duration, BootFiles: s.bootFiles6(),
	}, true
}

// bootFiles6 are the boot files by their URLs, as DHCPv6 wants them. Those on a
// TFTP server that has an IPv4 address have none there.
func (s LeaseSettings) bootFiles6() netboot.Files {
	host := s.TFTPServer
	if a, err := netip.ParseAddr(host); err == nil {
		host = ""
		if a = a.Unmap(); a.Is6() {
			host = "[" + a.WithZone("").String() + "]"
		}
	}
	files := slices.Clone(s.BootFiles)
	for i, f := range files {
		if host != "" && !strings.Contains(f.Name, "://") {
			u := url.URL{Scheme: "tftp", Host: host, Path: "/" + strings.TrimPrefix(f.Name, "/")} // RFC 3617
			files[i].Name = u.String()
		}
	}
	return files
}

// newAdvertisement makes the router advertisement for one interface of the pod,
// with the default route or without. ok is false if the VM gets no IPv6 there.
func newAdvertisement(p prepare.Plan, pod discover.Pod, defaultRoute bool, s LeaseSettings) (a ra.Advertisement, ok bool) {
	if p.IPv6 == nil {
		return ra.Advertisement{}, false
	}
	a = ra.Advertisement{Managed: true, Other: true, MTU: p.MTU}
	a.Router, a.MAC = routerOf(p)
	a.DNS, a.Search = s.resolver6(p, pod)
	for _, r := range routes6(p.Interface) {
		isDefault := r.Destination.Bits() == 0
		switch {
		case isDefault && !defaultRoute:
			continue
		case byRouter(p, r):
			a.Routes = append(a.Routes, r.Destination)
		case !isDefault && !r.Gateway.IsValid() && !isOwn(p.Interface, r.Destination):
			// On the link, for the guest as for the pod. The guest must not
			// make itself another address of it.
			a.Prefixes = append(a.Prefixes, ra.Prefix{Prefix: r.Destination, OnLink: true})
		}
		if isDefault && byRouter(p, r) { // ::/0 outlasts the router's lifetime
			a.RouterLifetime = ra.MaxRouterLifetime
		}
		if isDefault && r.MTU != 0 {
			a.MTU = min(a.MTU, r.MTU)
		}
	}
	if a.RouterLifetime > 0 { // who is the router needs no route
		a.Prefixes = slices.DeleteFunc(a.Prefixes, func(o ra.Prefix) bool { return o.Prefix == single(p.Interface.Gateway6.Address) })
	}
	slices.SortFunc(a.Routes, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	return a, true
}

// routes6 returns the IPv6 routes that can be told, the best to each destination.
func routes6(in discover.Interface) []discover.Route {
	var out []discover.Route
	for _, r := range in.PodRoutes() {
		to := r.Destination.Addr()
		if peculiarity(r) != "" || !to.Is6() || to.IsLinkLocalUnicast() || to.IsMulticast() {
			continue
		}
		if !slices.ContainsFunc(out, func(o discover.Route) bool { return o.Destination == r.Destination }) {
			out = append(out, r)
		}
	}
	return out
}

// byRouter reports whether a route leads to the router.
func byRouter(p prepare.Plan, r discover.Route) bool {
	return p.IPv6.Router != nil && p.Interface.Gateway6 != nil && p.Interface.Gateway6.Address == r.Gateway
}

// isOwn reports whether a route is the one to an address of the interface, which
// the kernel makes.
func isOwn(in discover.Interface, to netip.Prefix) bool {
	return slices.ContainsFunc(in.Addresses, func(a discover.Address) bool { return single(a.Prefix.Addr()) == to })
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// resolver6 is the DNS that IPv6 tells of, and ntp6 are the time servers: all of
// them if the VM has no IPv4, by which it would hear of the others.
func (s LeaseSettings) resolver6(p prepare.Plan, pod discover.Pod) (servers []netip.Addr, search []string) {
	servers, search = s.resolver(pod)
	if _, ok := p.Interface.IPv4(); ok {
		servers = ofFamily(servers, netip.Addr.Is6)
	}
	return servers, search
}

func (s LeaseSettings) ntp6(p prepare.Plan) []netip.Addr {
	if _, ok := p.Interface.IPv4(); ok {
		return ofFamily(s.NTP, netip.Addr.Is6)
	}
	return s.NTP
}

// routerOf is who tells the VM of its network: the router, or nobody's address
// if the pod has none.
func routerOf(p prepare.Plan) (netip.Addr, mac.Addr) {
	if r := p.IPv6.Router; r != nil {
		return r.LinkLocal, r.MAC
	}
	return p.Bridge.MAC.LinkLocal(), p.Bridge.MAC
}
