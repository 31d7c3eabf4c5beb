package discover

import (
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// podInterface is what container runtimes call a pod's first interface.
const podInterface = "eth0"

// defaultName picks the pod interface. eth0 is waited for if it is there and down:
// another one must not take its place. Else it is that of the default route; of the
// IPv4 and the IPv6 one where these are two. Without one it is the only one that is
// up, else eth0.
func (k kernel) defaultName() string {
	if l, ok := k.link(podInterface); ok && !l.Up() {
		return podInterface
	}
	link4, ok4 := k.defaultLink(true)
	link6, ok6 := k.defaultLink(false)
	switch {
	case ok4 && ok6 && link4.Index != link6.Index && k.comesSecond(link4, link6):
		return link6.Name
	case ok4:
		return link4.Name
	case ok6:
		return link6.Name
	}
	var others []string
	for _, l := range k.links {
		// Tunnel devices that every namespace is born with (tunl0, sit0,
		// gre0, …) are down.
		if !l.Loopback() && l.Up() {
			others = append(others, l.Name)
		}
	}
	if len(others) == 1 {
		return others[0]
	}
	return podInterface
}

// comesSecond reports whether of two links with a default route, of IPv4 and of
// IPv6, the former is there for the other family only: it is not the pod's first,
// and its IPv4 address is one that nobody else can reach (169.254.0.0/16), as that
// of v4if0 on EKS with IPv6.
func (k kernel) comesSecond(link4, link6 nl.Link) bool {
	if link4.Name == podInterface {
		return false
	}
	address, ok := k.newInterface(link4).IPv4()
	return link6.Name == podInterface || ok && address.Addr().IsLinkLocalUnicast()
}

// defaultLink returns the link of the best default route of a family that no router
// advertised.
func (k kernel) defaultLink(ipv4 bool) (link nl.Link, ok bool) {
	var best *Route
	for i, r := range k.routes {
		if r.Table == unix.RT_TABLE_MAIN && r.Type == unix.RTN_UNICAST && r.Protocol != unix.RTPROT_RA && r.Destination.Bits() == 0 &&
			r.Destination.Addr().Is4() == ipv4 && (best == nil || r.Metric < best.Metric) {
			best = &k.routes[i]
		}
	}
	for _, l := range k.links {
		if best != nil && l.Index == best.link() {
			return l, true
		}
	}
	return nl.Link{}, false
}
