package ra

import (
	"errors"
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
	a.DNS = n.Servers("DNS server", a.DNS, true)
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
	return func(p Prefix) (Prefix, string) {
		p.Prefix = p.Prefix.Masked()
		switch a := p.Prefix.Addr(); {
		case !p.Prefix.IsValid() || !a.Is6() || a.Is4In6():
			return p, "it is not IPv6"
		case a.IsLinkLocalUnicast() || a.IsMulticast():
			return p, "each link has it" // RFC 4861 §4.6.2
		case seen[p.Prefix]:
			return p, "it is listed twice"
		}
		seen[p.Prefix] = true
		return p, ""
	}
}

func readRoute(r netip.Prefix) (netip.Prefix, string) {
	r = r.Masked()
	switch a := r.Addr(); {
	case !r.IsValid() || !a.Is6() || a.Is4In6():
		return r, "it is not IPv6"
	case a.IsLinkLocalUnicast() || a.IsMulticast():
		return r, "it does not leave the link"
	}
	return r, ""
}

// Validate tells what is wrong with the advertisement that only its author can
// put right, all of it at once. What merely can't be sent is left to Normalize.
func (a Advertisement) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("invalid router advertisement: "+format, args...))
		}
	}
	check(a.Router.IsValid(), "Router is not set")
	check(!a.Router.IsValid() || a.Router.Is6() && a.Router.IsLinkLocalUnicast(), "router %v is not a link-local IPv6 address", a.Router)
	check(!a.MAC.IsZero(), "MAC is not set")
	check(!a.MAC.IsGroup(), "MAC address %v is a group address", a.MAC)
	check(a.RouterLifetime >= 0 && a.RouterLifetime <= MaxRouterLifetime && a.RouterLifetime%time.Second == 0,
		"router lifetime %v is not whole seconds up to %v", a.RouterLifetime, MaxRouterLifetime)
	check(a.Lifetime == 0 || a.Lifetime >= time.Second && a.Lifetime <= maxLifetime,
		"lifetime %v is neither 0 (infinite) nor within %v and %v", a.Lifetime, time.Second, maxLifetime)
	check(a.MTU >= 0 && a.MTU <= math.MaxUint16, "MTU %d is not within 0 and %d", a.MTU, math.MaxUint16)
	for _, p := range a.Prefixes {
		check(!p.Autonomous || p.Prefix.Bits() == 64, "prefix %v: guests make themselves addresses of 64 bits only (RFC 4862 §5.5.3)", p.Prefix)
	}
	return errors.Join(errs...)
}

// seconds is the lifetime as options have it.
func (a Advertisement) seconds() uint32 {
	if a.Lifetime == 0 {
		return math.MaxUint32 // infinity
	}
	return uint32(a.Lifetime / time.Second)
}
