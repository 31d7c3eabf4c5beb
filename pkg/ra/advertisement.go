package ra

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Limits of an advertisement.
const (
	// MaxRouterLifetime is the longest that a guest keeps its default router
	// without a further advertisement (RFC 8319 §4).
	MaxRouterLifetime = math.MaxUint16 * time.Second

	minMTU    = 1280 // RFC 8200 §5
	maxRoutes = 256
)

// Advertisement is what the guest is told of the router and the link. It is a
// value; nothing here is changed behind the caller's back. All but the router itself
// is told without an end.
type Advertisement struct {
	// Router is the router's link-local address: where the guest's routes lead.
	Router netip.Addr
	// MAC is the Ethernet address by which advertisements are sent.
	MAC mac.Addr
	// Managed (M) says that addresses are to be had by DHCPv6, Other (O) that
	// other settings are.
	Managed, Other bool
	// RouterLifetime is how long the router is a default router, in whole
	// seconds up to MaxRouterLifetime. 0: it is none.
	RouterLifetime time.Duration
	// MTU of the link in bytes. 0: not told.
	MTU int
	// Prefixes on the link (RFC 4861 §4.6.2), of which the guest makes itself no address.
	// None: the guest sends all to the router.
	Prefixes []netip.Prefix
	// Routes are destinations behind the router (RFC 4191), ::/0 among them if
	// the default route is to outlast RouterLifetime.
	Routes []netip.Prefix
	// DNS are the name servers, Search the domain search list (RFC 8106).
	DNS    []netip.Addr
	Search []string
}

// Normalize returns the advertisement as it can be sent, and a note for each
// thing that was left out. It never fails. Applied again, it changes nothing.
func (a Advertisement) Normalize() (Advertisement, []string) {
	var n normalize.Notes
	a.Router = a.Router.WithZone("")
	a.Prefixes = normalize.List(&n, "prefix %v", math.MaxInt, a.Prefixes, readPrefix)
	a.Routes = normalize.List(&n, "route %v", maxRoutes, a.Routes, readRoute)
	a.DNS = n.Servers("DNS server %v", a.DNS, true)
	a.Search = n.Search(a.Search)
	if a.MTU != 0 && a.MTU < minMTU {
		n.Add(fmt.Sprintf("IPv6 needs %d", minMTU), "MTU %d", a.MTU)
		a.MTU = 0
	}
	return a, n
}

func readPrefix(p netip.Prefix) (netip.Prefix, string) {
	return readDestination(p, "each link has it") // RFC 4861 §4.6.2
}

func readRoute(r netip.Prefix) (netip.Prefix, string) {
	return readDestination(r, "it does not leave the link")
}

// readDestination reads a prefix that is not the link's own, which is left out for that.
func readDestination(p netip.Prefix, local string) (netip.Prefix, string) {
	p = p.Masked()
	switch a := p.Addr(); {
	case !p.IsValid() || !a.Is6() || a.Is4In6():
		return p, "it is not IPv6"
	case a.IsLinkLocalUnicast() || a.IsMulticast():
		return p, local
	}
	return p, ""
}

// Validate tells what is wrong with the advertisement that only its author can
// put right, all of it at once. What merely can't be sent is left to Normalize.
func (a Advertisement) Validate() error {
	var c normalize.Checks
	c.That(a.Router.IsValid(), "Router is not set")
	c.That(!a.Router.IsValid() || a.Router.Is6() && a.Router.IsLinkLocalUnicast(), "router %v is not a link-local IPv6 address", a.Router)
	c.That(!a.MAC.IsZero(), "MAC is not set")
	c.That(!a.MAC.IsGroup(), "MAC address %v is a group address", a.MAC)
	c.That(a.RouterLifetime >= 0 && a.RouterLifetime <= MaxRouterLifetime && a.RouterLifetime%time.Second == 0,
		"router lifetime %v is not whole seconds up to %v", a.RouterLifetime, MaxRouterLifetime)
	c.That(a.MTU >= 0 && a.MTU <= math.MaxUint16, "MTU %d is not within 0 and %d", a.MTU, math.MaxUint16)
	return c.Err("invalid router advertisement")
}
