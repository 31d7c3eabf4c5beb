package clients

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// client is a DHCP client.
type client struct {
	name  string // of its script too
	title string
	// start starts it in a guest at a pod's tap, until the test's end; start6 for
	// IPv6. Nil: it can't.
	start, start6 func(*testing.T, client, *seat) running
	// boot boots it, until the test's end, in a machine that has a NIC at each of the
	// pods' taps and takes one lease after the other. Nil: it has a guest for each.
	boot func(*testing.T, []*seat) machine
	// only are the names of the leases that it takes, since another client is the same
	// program and takes them all; nil: those that it can.
	only []string
	// own is what it does otherwise than it is told, known and not ours to
	// change; own6 by IPv6.
	own, own6 []habit
}

// machine is a virtual machine with several NICs.
type machine interface {
	// take takes the lease of a seat by the NIC that is at its tap.
	take(t *testing.T, nic int, at *seat) running
	// leave ends what of a lease could be in the way of the next one's.
	leave(t *testing.T, nic int)
}

// kernel is the client that is no program.
const kernel = "kernel"

// habit is a way in which a client departs from what it is given.
type habit struct {
	why    string
	change func(*state)
}

// makes is what the client should make of a lease.
func (c client) makes(l lease) state {
	return l.given.with(func(s *state) {
		for _, h := range c.habits(l) {
			h.change(s)
		}
	})
}

func (c client) habits(l lease) []habit {
	if l.six {
		return c.own6
	}
	return c.own
}

// renews tells whether the client renews its lease.
func (c client) renews(l lease) bool {
	return c.name != kernel && !slices.ContainsFunc(c.habits(l), func(h habit) bool { return h.why == notRenewed })
}

// starter is how the client is started to take a lease; nil: it can't take it.
func (c client) starter(l lease) func(*testing.T, client, *seat) running {
	switch {
	case !l.six:
		return c.start
	case l.renew && c.name == "connman":
		return nil // see its habits
	}
	return c.start6
}

func (c client) takes(l lease) bool {
	return (c.boot != nil || c.starter(l) != nil) && (c.only == nil || slices.Contains(c.only, l.name))
}

// takers are the clients that take a lease.
func takers(l lease) []client {
	return slices.DeleteFunc(clients(), func(c client) bool { return !c.takes(l) })
}

func clients() []client {
	return []client{
		{name: kernel, title: "the kernel alone", start6: inKernel, own6: []habit{
			{"It asks DHCPv6 for nothing, and keeps no name servers.", func(s *state) { s.Address, s.DNS, s.Search = "", nil, nil }},
			routesBySysctl,
		}},
		{name: "udhcpc", title: "udhcpc", start: inSandbox, own: []habit{
			{"Debian's script adds the default route alone: classless static routes are not asked for.", onlyDefault},
			{"Debian's script writes the domain, but no search list: that is not asked for.", func(s *state) { s.Search = s.Search[:1] }},
			{"Debian's script does not set the hostname.", func(s *state) { s.Hostname = unset }},
		}},
		{name: "dhclient", title: "dhclient", start: inSandbox, start6: inSandbox6, own6: []habit{
			{"It leaves advertisements to the kernel: " + routesBySysctl.why, routesBySysctl.change},
		}},
		{name: "dhcpcd", title: "dhcpcd", start: inSandbox, start6: inSandbox6, own: []habit{
			{"A route to a network on the link is taken for one to its first address until the lease is renewed (before 10).", func(s *state) {
				for i, r := range s.Routes {
					if isOnLink(r) {
						s.Routes[i], _, _ = strings.Cut(r, "/")
					}
				}
				slices.Sort(s.Routes)
				s.Routes = slices.Compact(s.Routes)
			}},
			{"The MTU goes onto the routes, not the interface.", func(s *state) {
				for i := range s.Routes {
					s.Routes[i] += fmt.Sprintf(" mtu %d", s.MTU)
				}
				s.MTU = 1500
			}},
			{"The hostname gets the domain.", func(s *state) { s.Hostname += "." + s.Search[0] }},
		}, own6: []habit{
			{"Further routes in advertisements (RFC 4191) are not heeded.", onlyDefault6},
		}},
		{name: "networkd", title: "systemd-networkd", start: inSandbox, start6: inSandbox6, own: []habit{
			networkdRoutes,
		}},
		{name: "networkmanager", title: "NetworkManager", start: inSandbox, start6: inSandbox6},
		{name: "connman", title: "connman", start: inSandbox, start6: inSandbox6, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"Routes to the DNS servers, and to the gateway, are added; without a gateway on the link.", routesToDNS},
			{"Without a router the default route is on the link.", defaultAnyway},
			{"The search list is not asked for: the domain takes its place.", func(s *state) { s.Search = s.Search[:1] }},
		}, own6: []habit{
			{"It leaves advertisements to the kernel: " + routesBySysctl.why, routesBySysctl.change},
			{"The address takes the length of a prefix on the link.", func(s *state) {
				if slices.ContainsFunc(s.Routes, isOnLink) {
					takeHalf(s)
				}
			}},
			{"A lease that has an end is not judged: to renew it the address is taken away, and then declined.", asGiven},
		}},
		{name: "ipxe", title: "iPXE", start: inIPXE, start6: inIPXE6, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"It uses one DNS server.", func(s *state) { s.DNS = s.DNS[:1] }},
			{notRenewed, asGiven},
		}, own6: []habit{
			{"The address's /64 is taken to be on the link, and its router is found only where the advertisements have such a prefix (before 2024).", func(s *state) {
				onLink := slices.ContainsFunc(s.Routes, isOnLink)
				onlyDefault(s)
				if !onLink {
					s.Routes = nil
				}
				takeHalf(s)
			}},
			{"It has no MTU of IPv6.", func(s *state) { s.MTU = 0 }},
			{notRenewed, asGiven},
		}},
		{name: "ovmf", title: "OVMF", boot: bootUEFI, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"It has neither an MTU, nor a search list, nor a hostname.", func(s *state) { s.MTU, s.Search, s.Hostname = 0, nil, "" }},
			{notRenewed, asGiven},
		}, own6: []habit{
			{"The address's /64 is taken to be on the link; further routes in advertisements (RFC 4191) are not heeded.", func(s *state) {
				onlyDefault6(s)
				takeHalf(s)
				s.Routes = append(s.Routes, netip.MustParsePrefix(s.Address).Masked().String())
				slices.Sort(s.Routes)
				s.Routes = slices.Compact(s.Routes)
			}},
			{"It has neither an MTU nor a search list.", func(s *state) { s.MTU, s.Search = 0, nil }},
		}},
		// Its client is networkd's, which is emulated here: seconds of a processor for each.
		{name: "debian", title: "Debian in a VM", boot: bootDebian, only: []string{
			"flannel", "calico", "finite", "rebound", "calico6", "ptp6", "finite6",
		}, own: []habit{
			networkdRoutes,
		}},
	}
}

var networkdRoutes = habit{
	"Routes to the DNS servers, and to the gateway, are added (RoutesToDNS=); without a gateway on the link.", routesToDNS,
}

// routesBySysctl is the way of Linux.
var routesBySysctl = habit{"Further routes in advertisements (RFC 4191) are taken with accept_ra_rt_info_max_plen=128 only.", onlyDefault6}

// onlyDefault6 takes away what leads to other destinations by the router.
func onlyDefault6(s *state) {
	s.Routes = slices.DeleteFunc(s.Routes, func(r string) bool {
		return strings.Contains(r, " via ") && !strings.HasPrefix(r, toDefault)
	})
}

func isOnLink(route string) bool { return !strings.Contains(route, " via ") }

// takeHalf makes the address one of a network of 64 bits.
func takeHalf(s *state) {
	address, _, _ := strings.Cut(s.Address, "/")
	s.Address = address + "/64"
}

// notRenewed is why a client is once.
const notRenewed = "A lease that has an end is not renewed."

func asGiven(*state) {}

// unset is the hostname that a guest has before it is told another.
const unset = "localhost"

const toDefault = "default via "

func onlyDefault(s *state) {
	s.Routes = slices.DeleteFunc(s.Routes, func(r string) bool { return !strings.HasPrefix(r, toDefault) })
	if len(s.Routes) == 0 {
		s.Routes = nil
	}
}

// routesToDNS adds what lets DNS servers be reached whatever other interfaces
// there are: by the default route's gateway, else on the link.
func routesToDNS(s *state) {
	via := ""
	for _, r := range s.Routes {
		if gateway, ok := strings.CutPrefix(r, toDefault); ok {
			s.Routes = append(s.Routes, gateway)
			via = " via " + gateway
			break
		}
	}
	for _, server := range s.DNS {
		s.Routes = append(s.Routes, server+via)
	}
	slices.Sort(s.Routes)
	s.Routes = slices.Compact(s.Routes)
}

// defaultAnyway adds a default route on the link where there is no router.
func defaultAnyway(s *state) {
	if !slices.ContainsFunc(s.Routes, func(r string) bool { return strings.HasPrefix(r, toDefault) }) {
		s.Routes = append(s.Routes, "0.0.0.0", "default")
		slices.Sort(s.Routes)
	}
}
