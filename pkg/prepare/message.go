package prepare

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

func addressChange(add bool, link string, a discover.Address) change {
	return change{kind: "addr", add: add, text: addressText(a) + " dev " + link, message: addressRequest(a)}
}

// addressText writes an address as ip-address(8) takes it: with the peer's, to which
// the length belongs, where it has one.
func addressText(a discover.Address) string {
	attrs, _ := splitAttrs(a.Message[min(len(a.Message), unix.SizeofIfAddrmsg):])
	i := slices.IndexFunc(attrs, func(t attr) bool { return t.typ == unix.IFA_LOCAL })
	j := slices.IndexFunc(attrs, func(t attr) bool { return t.typ == unix.IFA_ADDRESS })
	if i >= 0 && j >= 0 && !bytes.Equal(attrs[i].value, attrs[j].value) {
		if peer, ok := netip.AddrFromSlice(attrs[j].value); ok {
			return fmt.Sprintf("%s peer %s/%d", a.Prefix.Addr(), peer, a.Prefix.Bits())
		}
	}
	return a.Prefix.String()
}

// addressRequest makes of the ifaddrmsg that the kernel sent one of which it makes the
// same: of a deprecated IPv4 address that has no end it tells that it is preferred for
// ever, and takes that at its word (inet_fill_ifaddr and set_ifa_lifetime,
// net/ipv4/devinet.c).
func addressRequest(a discover.Address) []byte {
	if !a.Prefix.Addr().Is4() || a.Flags&unix.IFA_F_DEPRECATED == 0 || len(a.Message) < unix.SizeofIfAddrmsg {
		return a.Message
	}
	m := slices.Clone(a.Message)
	attrs, _ := splitAttrs(m[unix.SizeofIfAddrmsg:])
	for _, t := range attrs {
		if t.typ == unix.IFA_CACHEINFO && len(t.value) >= 4 {
			clear(t.value[:4]) // the preferred lifetime
		}
	}
	return m
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
