package guest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
)

// Limits of what a NIC may have.
const (
	MinMTU      = 68         // RFC 791
	MinIPv6MTU  = 1280       // RFC 8200 section 5
	MaxMTU      = 65535 - 14 // of a tap: less the Ethernet header (drivers/net/tun.c)
	MaxQueues   = 256        // MAX_TAP_QUEUES, drivers/net/tun.c
	maxNameSize = 15         // IFNAMSIZ less the NUL
)

// CheckName refuses what can't be the name of an interface: what the kernel does
// not take (dev_valid_name, net/core/dev.c; sysctl_dev_name_is_allowed,
// include/net/ip.h), %, which it replaces by a number, and what JSON can't say.
func CheckName(name string) error {
	if name == "all" || name == "default" {
		return fmt.Errorf("%q can't be an interface name: the kernel keeps it for the settings of all interfaces", name)
	}
	isBad := func(c byte) bool { // to the kernel's isspace the byte 0xa0 is a space
		return strings.IndexByte("/:%\x00 \t\n\v\f\r\xa0", c) >= 0
	}
	if utf8.ValidString(name) && name != "" && name != "." && name != ".." && len(name) <= maxNameSize && !slices.ContainsFunc([]byte(name), isBad) {
		return nil
	}
	return fmt.Errorf("%q is not an interface name: use 1 to %d characters of UTF-8 without space, slash, colon or %%", name, maxNameSize)
}

// CheckHostname refuses what no guest can have for its host name.
func CheckHostname(name string) error {
	if why := normalize.HostnameFault(name); why != "" {
		return fmt.Errorf("%q is not a host name: %s: use labels of letters, digits and '-', with a dot between two", name, why)
	}
	return nil
}

// Validate tells all that is wrong with a NIC.
func (n NIC) Validate() error {
	c := normalize.Checks{CheckName(n.Interface), CheckName(n.Tap)}
	c.That(n.Interface != n.Tap, "the name %s is used twice", n.Tap)
	c.That(n.MAC.IsHost(), "the VM's MAC %q is not a unicast address", n.MAC)
	c.That(n.TapMAC.IsHost(), "the tap's MAC %q is not a unicast address", n.TapMAC)
	c.That(n.MTU >= MinMTU && n.MTU <= MaxMTU, "MTU %d is outside %d…%d", n.MTU, MinMTU, MaxMTU)
	c.That(n.Queues >= 1 && n.Queues <= MaxQueues, "%d queues: a tap has 1 to %d", n.Queues, MaxQueues)
	c.That(n.Addressed || n.IPv4 == nil && n.IPv6 == nil, "it has an address, but addressed is false")
	if n.IPv4 != nil {
		n.IPv4.check(&c)
	}
	if n.IPv6 != nil {
		c.That(n.MTU >= MinIPv6MTU, "MTU %d is too small for IPv6, which needs %d (RFC 8200): use a larger one, or give the VM no IPv6", n.MTU, MinIPv6MTU)
		n.IPv6.check(&c)
	}
	for _, a := range n.Aliases {
		c.That(n.has(a.VM) && n.has(a.Pod) && a.VM.Is4() == a.Pod.Is4(), "alias %s of the VM, and %s of the pod: the VM has no such addresses", a.VM, a.Pod)
		c.That(isAlias(a.VM) && isAlias(a.Pod) && a.VM != a.Pod, "alias %s of the VM, and %s of the pod, are not two hosts' addresses", a.VM, a.Pod)
		c.That(!slices.ContainsFunc(n.Addresses(), func(p netip.Prefix) bool { return p.Addr() == a.VM || p.Addr() == a.Pod }),
			"alias %s of the VM, and %s of the pod: the VM has that address on the network", a.VM, a.Pod)
	}
	for _, a := range n.Answers {
		c.That(n.has(a.Address) && !a.Address.IsUnspecified(), "answer for %s: the VM has no such neighbor", a.Address)
		c.That(!a.MAC.IsZero(), "answer for %s: it has no MAC", a.Address)
	}
	return c.Err(fmt.Sprintf("NIC of interface %q", n.Interface))
}

func (v *IPv4) check(c *normalize.Checks) {
	own := v.Address.Addr()
	c.That(isHost4(own) && v.Address.Bits() > 0, "IPv4 address %s is not a host's", v.Address)
	c.That(len(v.Addresses) > 0 && v.Addresses[0].Addr() == own, "the first of the IPv4 addresses %s is not %s", v.Addresses, own)
	for _, a := range v.Addresses {
		c.That(a.IsValid() && isHost4(a.Addr()), "IPv4 address %s is not a host's", a)
	}
	c.That(isHost4(v.Server) && v.Server != own, "DHCP server identifier %s is not another IPv4 host's", v.Server)
	c.That(v.Gateway == netip.Addr{} || isHost4(v.Gateway) && v.Gateway != own, "IPv4 gateway %s is not another host's", v.Gateway)
	for _, r := range v.Routes {
		c.That(r.Destination.IsValid() && r.Destination.Addr().Is4() && r.Destination == r.Destination.Masked(), "route: %s is not an IPv4 destination", r.Destination)
		c.That(r.Gateway == netip.Addr{} || isHost4(r.Gateway) && r.Gateway != own, "route to %s: %s is not an IPv4 gateway", r.Destination, r.Gateway)
		r.check(c)
	}
}

func (v *IPv6) check(c *normalize.Checks) {
	own := v.Address.Addr()
	c.That(isIPv6(own) && own.IsGlobalUnicast(), "IPv6 address %s is not a host's", v.Address)
	if r := v.Router; r != nil {
		c.That(isIPv6(r.LinkLocal) && r.LinkLocal.IsLinkLocalUnicast(), "IPv6 router %s is not a link-local address", r.LinkLocal)
		c.That(r.MAC.IsHost(), "the IPv6 router's MAC %q is not a unicast address", r.MAC)
		c.That(isIPv6(r.Gateway) && !r.Gateway.IsMulticast() && !r.Gateway.IsUnspecified() && r.Gateway != own, "IPv6 gateway %s is not another host's", r.Gateway)
	}
	c.That(v.Router != nil || len(v.Routes) == 0, "there are IPv6 routes by a router, but no router")
	for _, p := range v.Prefixes {
		c.That(isDestination6(p), "on the link: %s is not an IPv6 destination", p)
	}
	for _, r := range v.Routes {
		c.That(isDestination6(r.Destination), "route: %s is not an IPv6 destination", r.Destination)
		c.That(r.Gateway == netip.Addr{}, "route to %s: it has the gateway %s, but IPv6 routes are by the router", r.Destination, r.Gateway)
		r.check(c)
	}
}

func (r Route) check(c *normalize.Checks) {
	c.That(r.MTU == 0 || r.MTU >= MinMTU, "route to %s: MTU %d is less than %d", r.Destination, r.MTU, MinMTU)
}

func isAlias(a netip.Addr) bool { return isHost4(a) || isIPv6(a) && a.IsGlobalUnicast() }

func isIPv6(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.Zone() == "" }

func isDestination6(p netip.Prefix) bool {
	return p.IsValid() && isIPv6(p.Addr()) && !p.Addr().IsMulticast() && !p.Addr().IsLinkLocalUnicast() && p == p.Masked()
}
