package clients

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// client is a DHCP client.
type client struct {
	name  string // of its script too
	title string
	once  bool // does not renew
	// start starts it in a guest at a pod's tap, until the test's end.
	start func(*testing.T, client, *seat) running
	// own is what it does otherwise than it is told, known and not ours to
	// change.
	own []habit
}

// habit is a way in which a client departs from what it is given.
type habit struct {
	why    string
	change func(*state)
}

// makes is what the client should make of a lease.
func (c client) makes(l lease) state {
	return l.given.with(func(s *state) {
		for _, h := range c.own {
			h.change(s)
		}
	})
}

// everyone is all clients.
func everyone() []client { return append(clients(), debian) }

// clients are those that have a guest for each lease.
func clients() []client {
	return []client{
		{name: "udhcpc", title: "udhcpc", start: inSandbox, own: []habit{
			{"Debian's script adds the default route alone: classless static routes are not asked for.", onlyDefault},
			{"Debian's script writes the domain, but no search list: that is not asked for.", func(s *state) { s.Search = s.Search[:1] }},
			{"Debian's script does not set the hostname.", func(s *state) { s.Hostname = unset }},
		}},
		{name: "dhclient", title: "dhclient", start: inSandbox},
		{name: "dhcpcd", title: "dhcpcd", start: inSandbox, own: []habit{
			{"The MTU goes onto the routes, not the interface.", func(s *state) {
				for i := range s.Routes {
					s.Routes[i] += fmt.Sprintf(" mtu %d", s.MTU)
				}
				s.MTU = 1500
			}},
			{"The hostname gets the domain.", func(s *state) { s.Hostname += "." + s.Search[0] }},
		}},
		{name: "networkd", title: "systemd-networkd", start: inSandbox, own: []habit{
			networkdRoutes,
		}},
		{name: "networkmanager", title: "NetworkManager", start: inSandbox},
		{name: "connman", title: "connman", start: inSandbox, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"Routes to the DNS servers, and to the gateway, are added; without a gateway on the link.", routesToDNS},
			{"Without a router the default route is on the link.", defaultAnyway},
			{"The search list is not asked for: the domain takes its place.", func(s *state) { s.Search = s.Search[:1] }},
		}},
		{name: "ipxe", title: "iPXE", once: true, start: inIPXE, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"It uses one DNS server.", func(s *state) { s.DNS = s.DNS[:1] }},
			{notRenewed, asGiven},
		}},
		{name: "ovmf", title: "OVMF", once: true, start: inOVMF, own: []habit{
			{"Classless static routes are not asked for: the default route follows from the router.", onlyDefault},
			{"It has neither an MTU, nor a search list, nor a hostname.", func(s *state) { s.MTU, s.Search, s.Hostname = 0, nil, "" }},
			{notRenewed, asGiven},
		}},
	}
}

var networkdRoutes = habit{
	"Routes to the DNS servers, and to the gateway, are added (RoutesToDNS=); without a gateway on the link.", routesToDNS,
}

// notRenewed is why a client is once.
const notRenewed = "A lease that has an end is not renewed."

func asGiven(*state) {}

// unset is the hostname that a guest has before it is told another.
const unset = "localhost"

const toDefault = "default via "

func onlyDefault(s *state) {
	s.Routes = slices.DeleteFunc(s.Routes, func(r string) bool { return !strings.HasPrefix(r, toDefault) })
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
