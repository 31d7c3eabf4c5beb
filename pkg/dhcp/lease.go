package dhcp

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// Limits of a lease's settings.
const (
	minMTU       = 68 // RFC 2132 §5.1
	maxMTU       = 65535
	maxTFTPName  = 63  // sname, NUL-terminated (RFC 2131 §2)
	maxBootField = 127 // file, NUL-terminated
	maxDuration  = (math.MaxUint32 - 1) * time.Second
)

// Lease is what the guest is given: one address and the settings that go with
// it. It is a value; nothing here is changed behind the caller's back.
type Lease struct {
	// MAC is the guest's Ethernet address, the only client's.
	MAC mac.Addr
	// Address is the guest's IPv4 address; its bits make the subnet mask.
	Address netip.Prefix
	// Server is the server identifier (option 54). The guest sends its renewals
	// there, so it must be an address the guest has a route to and can resolve,
	// and not its own.
	Server netip.Addr
	// Router is the default router (option 3). Zero: none. Clients ignore it
	// when there are Routes (RFC 3442).
	Router netip.Addr
	// Routes are the classless static routes (option 121, and 249 for those who
	// ask), sent in this order. The caller orders them and includes the default
	// route.
	Routes []Route
	// DNS are the name servers (option 6).
	DNS []netip.Addr
	// Search is the domain search list (option 119); its first entry is the
	// domain name as well (option 15).
	Search []string
	// NTP are the time servers (option 42).
	NTP []netip.Addr
	// MTU of the guest's interface in bytes (option 26). 0: not sent.
	MTU int
	// Hostname of the guest (option 12). Empty: not sent.
	Hostname string
	// Duration of the lease, in whole seconds. 0: infinite.
	Duration time.Duration
	// TFTPServer is where the boot file is: a name or an address (sname, option
	// 66; siaddr and option 150 too if it is an IPv4 address).
	TFTPServer string
	// BootFiles are the boot files, of which each kind of firmware is told its
	// own (file unless the name is longer than 127 bytes, option 67).
	BootFiles netboot.Files
	// Options are sent besides, or instead of, what follows from the fields
	// above. An Option without a value takes one away.
	Options []Option
}

// Route is a classless static route (RFC 3442).
type Route struct {
	Destination netip.Prefix
	// Gateway is the next hop. Zero: the destination is on-link, which is
	// 0.0.0.0 on the wire.
	Gateway netip.Addr
}

// String is the route as ip-route(8) writes it.
func (r Route) String() string {
	if !r.Gateway.IsValid() {
		return fmt.Sprintf("route %v", r.Destination)
	}
	return fmt.Sprintf("route %v via %v", r.Destination, r.Gateway)
}

// Validate tells what is wrong with the lease that only its author can put
// right, all of it at once. What merely can't be sent is left to Normalize.
func (l Lease) Validate() error {
	var c normalize.Checks
	c.That(!l.MAC.IsZero(), "MAC is not set")
	c.That(!l.MAC.IsGroup(), "MAC address %v is a group address", l.MAC)

	addr := l.Address.Addr()
	c.That(l.Address.IsValid(), "Address is not set: it wants an IPv4 address and its prefix length")
	c.That(!l.Address.IsValid() || isHost(addr), "address %v is not an IPv4 host address with its prefix length", l.Address)
	c.That(!l.Address.IsValid() || l.Address.Bits() > 0, "address %v has no subnet", l.Address)
	c.That(l.Server.IsValid(), "Server is not set: it wants the address that the guest renews at")
	c.That(!l.Server.IsValid() || isHost(l.Server), "server identifier %v is not an IPv4 host address", l.Server)
	c.That(!l.Server.IsValid() || l.Server != addr, "server identifier %v is the guest's own address: it could never renew", l.Server)
	c.That(!l.Router.IsValid() || isHost(l.Router), "router %v is not an IPv4 host address", l.Router)
	c.That(!l.Router.IsValid() || l.Router != addr, "router %v is the guest's own address", l.Router)

	c.That(l.MTU == 0 || l.MTU >= minMTU && l.MTU <= maxMTU, "MTU %d is not within %d and %d", l.MTU, minMTU, maxMTU)
	c.That(l.Duration == 0 || l.Duration >= time.Second && l.Duration <= maxDuration,
		"duration %v is neither 0 (infinite) nor within %v and %v", l.Duration, time.Second, maxDuration)
	c.That(len(l.TFTPServer) <= maxTFTPName && !strings.ContainsFunc(l.TFTPServer, isControl), "TFTP server %q is longer than %d bytes or not printable", l.TFTPServer, maxTFTPName)
	c = append(c, l.BootFiles.Validate())
	for _, o := range l.Options {
		c = append(c, o.validate())
	}
	return c.Err("invalid lease")
}

func isHost(a netip.Addr) bool { return a.Is4() && normalize.IsHost(a) }

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// seconds is the lease time as option 51 has it.
func (l Lease) seconds() uint32 {
	if l.Duration == 0 {
		return math.MaxUint32 // infinity, RFC 2131 §3.3
	}
	return uint32(l.Duration / time.Second)
}
