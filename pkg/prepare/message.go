package prepare

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

func addressChange(add bool, link string, a discover.Address) change {
	return change{kind: "addr", add: add, text: a.Prefix.String() + " dev " + link, message: a.Message}
}

func neighborChange(add bool, link string, n discover.Neighbor) change {
	return change{kind: "neigh", add: add, text: fmt.Sprintf("%s lladdr %s dev %s nud permanent", n.Address, n.MAC, link), message: n.Message}
}

func proxyChange(add bool, link string, n discover.Neighbor) change {
	return change{kind: "neigh", add: add, text: fmt.Sprintf("proxy %s dev %s", n.Address, link), message: n.Message}
}

// routeChange is for a route by one link.
func routeChange(add bool, link string, r discover.Route) change {
	return change{
		kind: "route", add: add, first: r.First, message: routeRequest(r.Message),
		text: routeText(r, func(int) string { return link }),
	}
}

// routeText writes a route as ip-route(8) takes it; name names links by their
// indexes.
func routeText(r discover.Route, name func(index int) string) string {
	return r.Text(nextHopWords(r, name)...)
}

// nextHopWords says where a route leads.
func nextHopWords(r discover.Route, name func(index int) string) []string {
	if hops := nextHops(r.Message); len(hops) > 0 {
		var words []string
		for _, hop := range hops {
			words = append(words, "nexthop")
			words = append(words, viaWords(hop.gateway(), name(hop.Index()), r.Destination)...)
			words = append(words, fmt.Sprintf("weight %d", int(hop.NextHop[3])+1)) // rtnh_hops
		}
		return words
	}
	index := 0
	if len(r.Links) > 0 {
		index = r.Links[0]
	}
	return viaWords(r.Gateway, name(index), r.Destination)
}

func viaWords(gateway netip.Addr, dev string, to netip.Prefix) []string {
	var words []string
	if gateway.IsValid() && gateway.Is4() != to.Addr().Is4() {
		words = append(words, "via inet6", gateway.String())
	} else if gateway.IsValid() {
		words = append(words, "via", gateway.String())
	}
	if dev != "" {
		words = append(words, "dev", dev)
	}
	return words
}

// appendAttr appends a netlink attribute (struct nlattr, linux/netlink.h).
func appendAttr(m []byte, typ uint16, value []byte) []byte {
	m = binary.NativeEndian.AppendUint16(m, uint16(4+len(value)))
	m = binary.NativeEndian.AppendUint16(m, typ)
	m = append(m, value...)
	for len(m)%4 != 0 {
		m = append(m, 0)
	}
	return m
}
