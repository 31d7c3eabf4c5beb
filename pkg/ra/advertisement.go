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

	maxLifetime = (math.MaxUint32 - 1) * time.Second
	minMTU      = 1280 // RFC 8200 §5
	maxRoutes   = 256
)

// Advertisement is what the guest is told of the router and the link. It is a
// value; nothing here is changed behind the caller's back.
type Advertisement struct {
	// Router is the router's link-local address: where the guest's routes lead.
	Router netip.Addr
	// MAC is the router's Ethernet address, which the guest learns along with it.
	MAC mac.Addr
	// Managed (M) says that addresses are to be had by DHCPv6, Other (O) that
	// other settings are.
	Managed, Other bool
	// HopLimit is what the guest puts into its packets. 0: what it likes.
	HopLimit uint8
	// RouterLifetime is how long the router is a default router, in whole
	// seconds up to MaxRouterLifetime. 0: it is none.
	RouterLifetime time.Duration
	// MTU of the link in bytes. 0: not told.
	MTU int
	// Prefixes of the link. None: the guest sends all to the router.
	Prefixes []Prefix
	// Routes are destinations behind the router (RFC 4191), ::/0 among them if
	// the default route is to outlast RouterLifetime.
	Routes []netip.Prefix
	// DNS are the name servers, Search the domain search list (RFC 8106).
	DNS    []netip.Addr
	Search []string
	// Lifetime of the prefixes, the routes, the name servers and the search list,
	// in whole seconds. 0: infinite.
	Lifetime time.Duration
}

// Prefix is one of the link (RFC 4861 §4.6.2).
type Prefix struct {
	Prefix netip.Prefix
	// OnLink (L) says that who has an address of it is on the link.
	OnLink bool
	// Autonomous (A) has the guest make itself an address of it.
	Autonomous bool
}

// String is the prefix alone.
func (p Prefix) String() string { return p.Prefix.String() }

// Normalize returns the advertisement as it can be sent, and a note for each
// thing that was left out. It never fails. Applied again, it changes nothing.
func (a Advertisement) Normalize() (Advertisement, []string) {
	var n normalize.Notes
	a.Router = a.Router.WithZone("")
	a.Prefixes = normalize.List(&n, "prefix %v", math.MaxInt, a.Prefixes, prefixReader())
	a.Routes = normalize.List(&n, "route %v", maxRoutes, a.Routes, readRoute)
	a.DNS = n.Servers("DNS server %v", a.DNS, true)
	a.Search = n.Search(a.Search)
	if a.MTU != 0 && a.MTU < minMTU {
		n.Add(fmt.Sprintf("IPv6 needs %d", minMTU), "MTU %d", a.MTU)
		a.MTU = 0
	}
	return a, n
}

// prefixReader reads prefixes, each once whatever its flags are.
func prefixReader() func(Prefix) (Prefix, string) {
	seen := make(map[netip.Prefix]bool)
	return func(p Prefix) (_ Prefix, why string) {
		p.Prefix, why = readPrefix(p.Prefix, "each link has it") // RFC 4861 §4.6.2
		if why == "" && seen[p.Prefix] {
			why = "it is listed twice"
		}
		seen[p.Prefix] = true
		return p, why
	}
}

func readRoute(r netip.Prefix) (netip.Prefix, string) {
	return readPrefix(r, "it does not leave the link")
}

// readPrefix reads a prefix that is not the link's own, which is left out for that.
func readPrefix(p netip.Prefix, local string) (netip.Prefix, string) {
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
	c.That(a.Lifetime == 0 || a.Lifetime >= time.Second && a.Lifetime <= maxLifetime,
		"lifetime %v is neither 0 (infinite) nor within %v and %v", a.Lifetime, time.Second, maxLifetime)
	c.That(a.MTU >= 0 && a.MTU <= math.MaxUint16, "MTU %d is not within 0 and %d", a.MTU, math.MaxUint16)
	for _, p := range a.Prefixes {
		c.That(!p.Autonomous || p.Prefix.Bits() == 64, "prefix %v: guests make themselves addresses of 64 bits only (RFC 4862 §5.5.3)", p.Prefix)
	}
	return c.Err("invalid router advertisement")
}

// seconds is the lifetime as options have it.
func (a Advertisement) seconds() uint32 {
	if a.Lifetime == 0 {
		return math.MaxUint32 // infinity
	}
	return uint32(a.Lifetime / time.Second)
}
