package prepare

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

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

// routeTypes are ip(8)'s words for what a route does with packets (RTN_UNICAST,
// …, linux/rtnetlink.h).
var routeTypes = map[uint8]string{
	unix.RTN_LOCAL: "local ", unix.RTN_BROADCAST: "broadcast ", unix.RTN_ANYCAST: "anycast ", unix.RTN_MULTICAST: "multicast ",
	unix.RTN_BLACKHOLE: "blackhole ", unix.RTN_UNREACHABLE: "unreachable ", unix.RTN_PROHIBIT: "prohibit ", unix.RTN_THROW: "throw ",
}

// routeText writes a route as ip-route(8) takes it; name names links by their
// indexes.
func routeText(r discover.Route, name func(index int) string) string {
	dst := r.Destination.String()
	if r.Destination.Bits() == 0 {
		dst = "default"
	}
	words := append([]string{routeTypes[r.Type] + dst}, nextHopWords(r, name)...)
	if r.From.IsValid() {
		words = append(words, "from", r.From.String())
	}
	if r.TOS != 0 {
		words = append(words, fmt.Sprintf("tos %#x", r.TOS))
	}
	if r.Table != unix.RT_TABLE_MAIN {
		words = append(words, fmt.Sprintf("table %d", r.Table))
	}
	if r.Scope != unix.RT_SCOPE_UNIVERSE {
		words = append(words, "scope", r.Scope.String())
	}
	if r.Source.IsValid() {
		words = append(words, "src", r.Source.String())
	}
	if r.Metric != 0 {
		words = append(words, fmt.Sprintf("metric %d", r.Metric))
	}
	if r.MTU != 0 {
		words = append(words, fmt.Sprintf("mtu %d", r.MTU))
	}
	if r.OnLink {
		words = append(words, "onlink")
	}
	return strings.Join(words, " ")
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
