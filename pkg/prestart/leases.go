package prestart

import (
	"cmp"
	"errors"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp6"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
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

// leases are what one NIC's servers tell the VM, as it can be sent; nil: the NIC has
// no address of the family.
type leases struct {
	ipv4          *dhcp.Lease
	ipv6          *dhcp6.Lease
	advertisement *ra.Advertisement // goes along with ipv6
	omitted       []discover.Omission
}

// leases are those of a NIC in a pod, where these NICs have the default routes.
func (s LeaseSettings) leases(n guest.NIC, pod discover.Pod, d defaultRoutes) leases {
	s.Hostname = cmp.Or(s.Hostname, pod.Hostname)
	if len(s.DNS) == 0 {
		s.DNS = pod.DNS.Servers
	}
	if len(s.Search) == 0 {
		s.Search = pod.DNS.Search
	}
	s4, s6 := s, s
	if n.IPv4 != nil && n.IPv6 != nil { // servers are told of by the protocol of their family
		s4.DNS, s4.NTP = ofFamily(s.DNS, netip.Addr.Is4), ofFamily(s.NTP, netip.Addr.Is4)
		s6.DNS, s6.NTP = ofFamily(s.DNS, netip.Addr.Is6), ofFamily(s.NTP, netip.Addr.Is6)
	}
	l := leases{omitted: append(slices.Clone(n.Omitted), d.omitted(n)...)}
	if n.IPv4 != nil {
		lease, left := s4.lease(n, d.ipv4 == n.Interface).Normalize()
		l.ipv4 = &lease
		l.omit(left)
	}
	if n.IPv6 != nil {
		lease, left := s6.lease6(n).Normalize()
		l.ipv6 = &lease
		l.omit(left)
		advertisement, left := s6.advertise(n, d.ipv6 == n.Interface).Normalize()
		l.advertisement = &advertisement
		l.omit(left)
	}
	return l
}

// omit adds what a server says to have left out, as others may have said, too.
func (l *leases) omit(left []string) {
	for _, note := range left {
		what, why, _ := strings.Cut(note, " left out: ")
		if o := (discover.Omission{What: what, Why: why}); !slices.Contains(l.omitted, o) {
			l.omitted = append(l.omitted, o)
		}
	}
}

// check tells why the servers would refuse what they are to tell.
func (l leases) check() error {
	var errs []error
	if l.ipv4 != nil {
		errs = append(errs, l.ipv4.Validate())
	}
	if l.ipv6 != nil {
		errs = append(errs, l.ipv6.Validate(), l.advertisement.Validate())
	}
	return errors.Join(errs...)
}

func (s LeaseSettings) lease(n guest.NIC, hasDefault bool) dhcp.Lease {
	l := dhcp.Lease{
		MAC: n.MAC, Address: n.IPv4.Address, Server: n.IPv4.Server, MTU: n.MTU,
		DNS: s.DNS, Search: s.Search, NTP: s.NTP, Hostname: s.Hostname, Duration: s.Duration,
		TFTPServer: s.TFTPServer, BootFiles: s.BootFiles, Options: s.Options,
	}
	for _, r := range n.IPv4.Routes {
		if r.Destination.Bits() == 0 {
			if !hasDefault {
				continue
			}
			l.Router, l.MTU = r.Gateway, min(n.MTU, cmp.Or(r.MTU, n.MTU))
		}
		l.Routes = append(l.Routes, dhcp.Route{Destination: r.Destination, Gateway: r.Gateway})
	}
	return l
}

func (s LeaseSettings) lease6(n guest.NIC) dhcp6.Lease {
	server, _ := n.Advertiser()
	return dhcp6.Lease{
		MAC: n.MAC, Address: n.IPv6.Address.Addr(), Server: server, DNS: s.DNS, Search: s.Search, NTP: s.NTP,
		Hostname: s.Hostname, Valid: s.Duration, BootFiles: s.bootFiles6(),
	}
}

func (s LeaseSettings) advertise(n guest.NIC, hasDefault bool) ra.Advertisement {
	router, mac := n.Advertiser()
	a := ra.Advertisement{Router: router, MAC: mac, Managed: true, Other: true, MTU: n.MTU, DNS: s.DNS, Search: s.Search}
	for _, r := range n.IPv6.Routes {
		if r.Destination.Bits() == 0 {
			if !hasDefault {
				continue
			}
			a.RouterLifetime = ra.MaxRouterLifetime // which ::/0 outlasts
			a.MTU = min(n.MTU, cmp.Or(r.MTU, n.MTU))
		}
		a.Routes = append(a.Routes, r.Destination)
	}
	for _, p := range n.IPv6.Prefixes {
		if a.RouterLifetime > 0 && p.IsSingleIP() && p.Addr() == n.IPv6.Router.Gateway { // who is the router needs no route
			continue
		}
		// On the link, for the VM as for the pod. The VM must not make itself another
		// address of it.
		a.Prefixes = append(a.Prefixes, p)
	}
	return a
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

// ofFamily returns the addresses of a family.
func ofFamily(addresses []netip.Addr, is func(netip.Addr) bool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return !is(a.Unmap()) })
}
