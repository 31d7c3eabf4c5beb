package prestart

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// NewLease6 makes the DHCPv6 lease for one interface of the pod. ok is false if
// the VM gets no IPv6 there.
func NewLease6(p prepare.Plan, pod discover.Pod, s LeaseSettings) (l dhcp6.Lease, ok bool) {
	if p.IPv6 == nil {
		return dhcp6.Lease{}, false
	}
	server, _ := routerOf(p)
	dns, search := s.resolver6(p, pod)
	return dhcp6.Lease{
		MAC: []byte(p.MAC), Address: p.IPv6.Address.Addr(), Server: server, DNS: dns, Search: search, NTP: s.ntp6(p),
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

// NewAdvertisement makes the router advertisement for one interface of the pod,
// with the default route or without. ok is false if the VM gets no IPv6 there.
func NewAdvertisement(p prepare.Plan, pod discover.Pod, defaultRoute bool, s LeaseSettings) (a ra.Advertisement, ok bool) {
	if p.IPv6 == nil {
		return ra.Advertisement{}, false
	}
	a = ra.Advertisement{Managed: true, Other: true, MTU: p.MTU}
	a.Router, a.MAC = routerOf(p)
	a.DNS, a.Search = s.resolver6(p, pod)
	if p.IPv6.Router != nil && defaultRoute {
		a.RouterLifetime = ra.MaxRouterLifetime
	}
	address := p.IPv6.Address
	for _, r := range p.Interface.Routes {
		switch {
		case r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST || !r.Destination.Addr().Is6() || r.Destination.Addr().IsLinkLocalUnicast():
		case r.Destination.Bits() == 0:
			if r.MTU != 0 && defaultRoute {
				a.MTU = min(a.MTU, r.MTU)
			}
		case !r.Gateway.IsValid():
			// On the link: the pod's own prefix where its CNI says so. The
			// guest must not make itself another address of it.
			if r.Destination == address.Masked() && !address.IsSingleIP() {
				a.Prefixes = append(a.Prefixes, ra.Prefix{Prefix: r.Destination, OnLink: true})
			}
		case p.IPv6.Router != nil && isDefaultGateway(p, r.Gateway):
			a.Routes = append(a.Routes, r.Destination)
		}
	}
	if a.RouterLifetime > 0 {
		a.Routes = append(a.Routes, netip.PrefixFrom(netip.IPv6Unspecified(), 0)) // outlasts the router's lifetime
	}
	slices.SortFunc(a.Routes, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	return a, true
}

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

// isDefaultGateway reports whether a route leads where the router does.
func isDefaultGateway(p prepare.Plan, gateway netip.Addr) bool {
	return p.Interface.Gateway6 != nil && p.Interface.Gateway6.Address == gateway
}

// routerOf is who tells the VM of its network: the router, or nobody's address
// if the pod has none.
func routerOf(p prepare.Plan) (netip.Addr, []byte) {
	if r := p.IPv6.Router; r != nil {
		return r.LinkLocal, []byte(r.MAC)
	}
	return prepare.LinkLocal(p.Bridge.MAC), []byte(p.Bridge.MAC)
}
