package dhcp6

import (
	"math"
	"net/netip"
	"net/url"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/netboot"
)

// Limits of a lease's settings.
const (
	infinity    = math.MaxUint32 * time.Second // RFC 8415 §7.7
	maxDuration = infinity - time.Second
)

// Lease is what the guest is given: one address and the settings that go with
// it. It is a value; nothing here is changed behind the caller's back.
type Lease struct {
	// MAC is the guest's Ethernet address, the only client's.
	MAC mac.Addr
	// Address is the guest's IPv6 address. DHCPv6 has no prefix lengths: what is
	// on the link is the router's to say.
	Address netip.Addr
	// Server is the link-local address that answers come from.
	Server netip.Addr
	// DNS are the name servers (option 23).
	DNS []netip.Addr
	// Search is the domain search list (option 24).
	Search []string
	// NTP are the time servers (options 56 and 31).
	NTP []netip.Addr
	// Hostname of the guest, told to those who ask with a name of their own
	// (option 39). Empty: they are told that theirs is not registered.
	Hostname string
	// BootFiles are the boot files, of which each kind of firmware is told its
	// own (option 59), by their URLs: DHCPv6 knows no other name (RFC 5970 §3.1).
	BootFiles netboot.Files
	// Valid is how long the guest has the address and uses it for new connections, in
	// whole seconds. 0: infinite.
	Valid time.Duration
}

// Normalize returns the lease as it can be sent, and a note for each thing that
// was left out. It never fails: what a pod's resolv.conf holds must not cost a
// guest its start. Applied again, it changes nothing.
func (l Lease) Normalize() (Lease, []string) {
	var n normalize.Notes
	l.Address, l.Server = l.Address.WithZone(""), l.Server.WithZone("")
	l.DNS = n.Servers("DNS server %v", l.DNS, true)
	l.NTP = n.Servers("NTP server %v", l.NTP, true)
	l.Search = n.Search(l.Search)
	l.Hostname = n.Hostname(l.Hostname)
	l.BootFiles = urlsOf(&n, l.BootFiles)
	return l, n
}

// Validate tells what is wrong with the lease that only its author can put
// right, all of it at once. What merely can't be sent is left to Normalize.
func (l Lease) Validate() error {
	var c normalize.Checks
	c.That(!l.MAC.IsZero(), "MAC is not set")
	c.That(!l.MAC.IsGroup(), "MAC address %v is a group address", l.MAC)
	c.That(l.Address.IsValid(), "Address is not set")
	c.That(!l.Address.IsValid() || l.Address.Is6() && !l.Address.Is4In6() && l.Address.IsGlobalUnicast(), "address %v is not a host's IPv6 address", l.Address)
	c.That(l.Server.IsValid(), "Server is not set: it wants a link-local address")
	c.That(!l.Server.IsValid() || l.Server.Is6() && l.Server.IsLinkLocalUnicast(), "server %v is not a link-local IPv6 address", l.Server)

	c.That(l.Valid == 0 || l.Valid >= time.Second && l.Valid <= maxDuration, "valid lifetime %v is neither 0 (infinite) nor within %v and %v", l.Valid, time.Second, maxDuration)

	c = append(c, l.BootFiles.Validate())
	return c.Err("invalid lease")
}

// urlsOf are the boot files that have a URL.
func urlsOf(n *normalize.Notes, files netboot.Files) (out netboot.Files) {
	for _, f := range files {
		if u, err := url.Parse(f.Name); err != nil || u.Scheme == "" || u.Host == "" {
			n.Add("DHCPv6 needs a URL, or a TFTP server that has an IPv6 address or a name", "boot file %q", f.Name)
			continue
		}
		out = append(out, f)
	}
	return out
}
