package discover

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// physical is the Kind of hardware, for which the kernel has no word.
const physical = "physical"

// Interface is a pod interface as the CNI left it.
type Interface struct {
	Name  string   `json:"name"`
	Index int      `json:"index"`           // the kernel's; it stays when the link is renamed
	Kind  string   `json:"kind"`            // veth, macvlan, …; "physical" for hardware
	Alias string   `json:"alias,omitempty"` // what somebody wrote on the link
	MAC   mac.Addr `json:"mac"`             // zero if it has none
	MTU   int      `json:"mtu"`

	Up           bool   `json:"up"`
	Carrier      bool   `json:"carrier"`
	ARP          bool   `json:"arp"`
	PointToPoint bool   `json:"pointToPoint,omitempty"`
	Ethernet     bool   `json:"ethernet"`          // false: frames have no Ethernet header (netkit in L3 mode, tun, …)
	Master       string `json:"master,omitempty"`  // the link it already belongs to, such as a bond or VRF
	TakenBy      string `json:"takenBy,omitempty"` // kind and name of a link on it that gets its frames, as a macvlan does
	AddrGenMode  int    `json:"addrGenMode"`       // IFLA_INET6_ADDR_GEN_MODE; -1: the link has no IPv6

	Addresses []Address  `json:"addresses,omitempty"`
	Routes    []Route    `json:"routes,omitempty"`    // by it, in the kernel's order; of the table local only what does not follow from the addresses
	Neighbors []Neighbor `json:"neighbors,omitempty"` // permanent ones
	Proxies   []Neighbor `json:"proxies,omitempty"`   // what it answers for, without a MAC
	// Shared are routes that the kernel takes away along with this interface's
	// addresses, and that hang on other links, too.
	Shared []SharedRoute `json:"shared,omitempty"`
	// Elsewhere are the link-local IPv4 and the unique local IPv6 networks that the pod
	// has by its other links, as a DNS cache of the node's has one on lo: an address of
	// the pod's alone is not chosen there.
	Elsewhere []LinkNetwork `json:"elsewhere,omitempty"`
	// Gateway6 is the gateway of the widest IPv6 route, which is the default one if
	// there is one, with its MAC; nil: there is none, or it does not answer.
	Gateway6 *Neighbor `json:"gateway6,omitempty"`
	// Tables4 and Tables6 are the routing tables that packets from its IPv4 and its
	// IPv6 address look into, in this order; none: main alone. See [Interface.PodRoutes].
	Tables4 []int `json:"tables4,omitempty"`
	Tables6 []int `json:"tables6,omitempty"`
	// NoEgress is set where the kernel can't look at what leaves by the interface (the
	// egress hook of nftables, Linux 5.16). LocalPorts are then those, from one to
	// another, that the kernel takes for the pod's own connections; zero: not known.
	NoEgress   bool      `json:"noEgress,omitempty"`
	LocalPorts [2]uint16 `json:"localPorts,omitzero"`
	// Omitted is what of all this its VM can't be given, whatever it is told.
	Omitted []Omission `json:"omitted,omitempty"`
}

// Message is a netlink message of the kernel, without its header. It is printed as
// its size.
type Message []byte

// String returns the size in words.
func (m Message) String() string { return fmt.Sprintf("%d bytes of netlink", len(m)) }

// Address is an address of a pod interface.
type Address struct {
	Prefix netip.Prefix `json:"prefix"`
	Scope  Scope        `json:"scope"`
	Flags  uint32       `json:"flags,omitempty"` // IFA_F_… (linux/if_addr.h)
	// Protocol is who made it, IFAPROT_… (linux/if_addr.h); 0: unknown.
	Protocol uint8 `json:"protocol,omitempty"`
	// Message is the kernel's own ifaddrmsg with attributes, so that
	// restoring the address loses none (label, broadcast, lifetimes, …).
	Message Message `json:"message"`
}

// Neighbor is a permanent entry of the neighbour table.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	MAC     mac.Addr   `json:"mac"`
	// Message is the kernel's own ndmsg with attributes, as in [Address].
	Message Message `json:"message,omitempty"`
}

// Scope is the reach of an address or a route (rt_scope_t, linux/rtnetlink.h).
// As text it is ip(8)'s word: global, site, link, host, nowhere or a number.
type Scope uint8

var scopeNames = map[Scope]string{
	unix.RT_SCOPE_UNIVERSE: "global",
	unix.RT_SCOPE_SITE:     "site",
	unix.RT_SCOPE_LINK:     "link",
	unix.RT_SCOPE_HOST:     "host",
	unix.RT_SCOPE_NOWHERE:  "nowhere",
}

// String returns ip(8)'s word for the scope.
func (s Scope) String() string {
	if name, ok := scopeNames[s]; ok {
		return name
	}
	return fmt.Sprintf("%d", uint8(s))
}

// MarshalText implements [encoding.TextMarshaler].
func (s Scope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Scope) UnmarshalText(b []byte) error {
	for scope, name := range scopeNames {
		if name == string(b) {
			*s = scope
			return nil
		}
	}
	if _, err := fmt.Sscanf(string(b), "%d", (*uint8)(s)); err != nil {
		return fmt.Errorf("parse scope %q: %w", b, err)
	}
	return nil
}

// Global reports whether other hosts can use the address. 169.254.0.0/16 counts
// if its scope is global: some CNIs use nothing else for a pod.
func (a Address) Global() bool { return a.Scope == unix.RT_SCOPE_UNIVERSE }

// FromRouter reports whether the kernel made the address of a router's
// advertisement (RFC 4862), so that the CNI did not give it. All such addresses,
// and nothing that a CNI gives, look after temporary ones or are such.
func (a Address) FromRouter() bool {
	return a.isIPv6() && (a.Protocol == addressByRouter || a.Flags&(unix.IFA_F_MANAGETEMPADDR|unix.IFA_F_TEMPORARY) != 0)
}

// Addressed reports whether the CNI gave the interface an address that other hosts
// use, be it of no use now, such as a duplicate. Else the network has no IPAM, and a
// VM is on it as any other host.
func (i Interface) Addressed() bool {
	return slices.ContainsFunc(i.Addresses, func(a Address) bool { return a.Global() && !a.FromRouter() })
}

// hasAddress is Addressed by an address that is not still being checked for
// duplicates.
func (i Interface) hasAddress() bool {
	return slices.ContainsFunc(i.Addresses, func(a Address) bool {
		return a.Global() && !a.FromRouter() && a.Flags&unix.IFA_F_TENTATIVE == 0
	})
}

// Has reports whether the interface has that address.
func (i Interface) Has(p netip.Prefix) bool {
	return slices.ContainsFunc(i.Addresses, func(a Address) bool { return a.Prefix == p })
}

// GivenBack reports whether the interface looks like a device that a CNI plugin
// has lent to the pod and takes back by its name: hardware, such as an SR-IOV
// virtual function, or any link with the name on the node as its alias, as the
// plugin host-device leaves it.
func (i Interface) GivenBack() bool { return i.Kind == physical || i.Alias != "" }

// IPv4 returns the first global IPv4 address, which is the pod's; ok is false
// if there is none.
func (i Interface) IPv4() (p netip.Prefix, ok bool) {
	for _, a := range i.Addresses {
		if a.Prefix.Addr().Is4() && !a.Prefix.Addr().IsMulticast() && a.Global() && a.Flags&unix.IFA_F_SECONDARY == 0 {
			return a.Prefix, true
		}
	}
	return netip.Prefix{}, false
}

// IPv6 returns the pod's IPv6 address: of the global ones that the CNI gave and
// that can be used the first that it added, which is the one that Kubernetes knows.
// The kernel lists the newest first (ipv6_link_dev_addr, net/ipv6/addrconf.c). One
// with an end counts only if there is no other, a deprecated one if there is no
// other at all. ok is false if there is none.
func (i Interface) IPv6() (p netip.Prefix, ok bool) {
	best := 0
	for _, a := range i.Addresses {
		if !a.isIPv6() || a.FromRouter() || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		rank := 1
		switch {
		case a.Flags&unix.IFA_F_DEPRECATED != 0:
		case a.Flags&unix.IFA_F_PERMANENT == 0:
			rank = 2
		default:
			rank = 3
		}
		if rank >= best {
			p, ok, best = a.Prefix, true, rank
		}
	}
	return p, ok
}

func (a Address) isIPv6() bool { return a.Prefix.Addr().Is6() && a.Global() }

// checking reports whether the kernel still looks whether somebody else has the
// address (RFC 4862 section 5.4).
func (a Address) checking() bool {
	return a.isIPv6() && !a.FromRouter() && a.Flags&unix.IFA_F_TENTATIVE != 0 && a.Flags&unix.IFA_F_DADFAILED == 0
}

// takesFrames are the kinds of links that get the frames of the link below them, each
// by its rx_handler, of which a link has one (netdev_rx_handler_register, net/core/dev.c).
var takesFrames = map[string]bool{"macvlan": true, "macvtap": true, "ipvlan": true, "ipvtap": true, "macsec": true, "rmnet": true}

// newInterface collects what the kernel has of one link.
func (k kernel) newInterface(l nl.Link) Interface {
	in := Interface{
		Name: l.Name, Index: l.Index, Kind: l.Kind, Alias: l.Alias, MAC: l.MAC, MTU: l.MTU,
		Up: l.Up(), Carrier: l.Carrier, ARP: l.ARP(), PointToPoint: l.PointToPoint(), Ethernet: l.Type == unix.ARPHRD_ETHER,
		AddrGenMode: l.AddrGenMode,
	}
	if in.Kind == "" {
		in.Kind = physical
	}
	for _, other := range k.links {
		if l.Master != 0 && other.Index == l.Master {
			in.Master = other.Name
		}
		if other.Lower == l.Index && takesFrames[other.Kind] {
			in.TakenBy = other.Kind + " " + other.Name
		}
	}
	in.Addresses, in.Neighbors, in.Proxies = k.addresses[l.Index], k.neighbors[l.Index], k.proxies[l.Index]
	in.Routes, in.Shared = k.routesOf(in)
	if p, ok := in.IPv4(); ok {
		in.Tables4 = k.tables(p.Addr())
	}
	if p, ok := in.IPv6(); ok {
		in.Tables6 = k.tables(p.Addr())
	}
	if in.NoEgress = !hasEgressHook(); in.NoEgress {
		in.LocalPorts = localPorts()
	}
	in.Omitted = in.omissions()
	return in
}
