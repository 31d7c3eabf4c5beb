package discover

import (
	"encoding/binary"
	"net/netip"
	"slices"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// What golang.org/x/sys/unix does not have (linux/if_addr.h, linux/rtnetlink.h).
const (
	attrAddressProtocol = 11 // IFA_PROTO, since Linux 5.18
	addressByRouter     = 2  // IFAPROT_KERNEL_RA: the kernel made the address of a router's advertisement
	attrNextHopID       = 30 // RTA_NH_ID
)

// newAddress reads an address, and the index of its link, from struct ifaddrmsg
// (linux/if_addr.h).
func newAddress(m []byte) (link int, a Address) {
	attrs := nl.Attributes(m[unix.SizeofIfAddrmsg:])
	value := attrs.Get(unix.IFA_LOCAL)
	if value == nil { // it is the peer's where there are both
		value = attrs.Get(unix.IFA_ADDRESS)
	}
	return linkOf(m), Address{
		Prefix: netip.PrefixFrom(addressOf(value), int(m[1])), Scope: Scope(m[3]), Flags: uint32(attrs.Int(unix.IFA_FLAGS, int(m[2]))),
		Protocol: uint8(attrs.Int(attrAddressProtocol, 0)), Message: slices.Clone(m),
	}
}

// newNeighbor reads a neighbour, the index of its link and its state (NUD_PERMANENT,
// …) from struct ndmsg (linux/neighbour.h).
func newNeighbor(m []byte) (link int, state uint16, n Neighbor) {
	attrs := nl.Attributes(m[unix.SizeofNdMsg:])
	return linkOf(m), binary.NativeEndian.Uint16(m[8:]), Neighbor{
		Address: addressOf(attrs.Get(unix.NDA_DST)), MAC: mac.Of(attrs.Get(unix.NDA_LLADDR)), Message: slices.Clone(m),
	}
}

// linkOf is the index that an ifaddrmsg and an ndmsg have at the same place.
func linkOf(m []byte) int { return int(binary.NativeEndian.Uint32(m[4:])) }

func addressOf(value []byte) netip.Addr {
	address, _ := netip.AddrFromSlice(value)
	return address
}

// newRoute reads a route from struct rtmsg (linux/rtnetlink.h). ok is false if it is
// none, but an exception that the kernel has cached.
func newRoute(m []byte) (r Route, ok bool) {
	h, attrs := vnl.DeserializeRtMsg(m), nl.Attributes(m[unix.SizeofRtMsg:])
	r = Route{
		Destination: netip.PrefixFrom(netip.IPv4Unspecified(), int(h.Dst_len)), Scope: Scope(h.Scope), OnLink: h.Flags&unix.RTNH_F_ONLINK != 0,
		Table: attrs.Int(unix.RTA_TABLE, int(h.Table)), Type: h.Type, Protocol: h.Protocol, TOS: h.Tos,
		Source: addressOf(attrs.Get(unix.RTA_PREFSRC)), Metric: attrs.Int(unix.RTA_PRIORITY, 0),
		MTU: attrs.In(unix.RTA_METRICS).Int(unix.RTAX_MTU, 0), NextHop: uint32(attrs.Int(attrNextHopID, 0)), Message: slices.Clone(m),
	}
	if to := attrs.Get(unix.RTA_DST); to != nil {
		r.Destination = netip.PrefixFrom(addressOf(to), int(h.Dst_len))
	} else if h.Family == unix.AF_INET6 {
		r.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), int(h.Dst_len))
	}
	if from := attrs.Get(unix.RTA_SRC); from != nil {
		r.From = netip.PrefixFrom(addressOf(from), int(h.Src_len))
	}
	if info := attrs.Get(unix.RTA_CACHEINFO); len(info) >= 12 { // struct rta_cacheinfo: rta_expires is the third
		r.Expires = binary.NativeEndian.Uint32(info[8:]) != 0
	}
	if link := attrs.Int(unix.RTA_OIF, 0); link != 0 {
		r.Links = []int{link}
	}
	for i, hop := range nl.NextHops(attrs.Get(unix.RTA_MULTIPATH)) {
		r.Links = append(r.Links, hop.Index())
		if i == 0 {
			attrs = hop.Attributes()
		}
	}
	r.Gateway, r.Encap = addressOf(attrs.Get(unix.RTA_GATEWAY)), attrs.Get(unix.RTA_ENCAP) != nil
	if via := attrs.Get(unix.RTA_VIA); len(via) > 2 { // struct rtvia: the family, then the address
		r.Gateway = addressOf(via[2:])
	}
	return r, h.Flags&unix.RTM_F_CLONED == 0
}

// rule is a policy routing rule (ip-rule(8), linux/fib_rules.h).
type rule struct {
	ipv6     bool
	priority int
	from     netip.Prefix // only packets from here; zero: from anywhere
	table    int          // 0: it leads to no table (blackhole, goto, …)
	// selective is whether it asks for more than a packet's source, or does not
	// take all that it finds: a destination, a mark, a port, a user, …
	selective bool
}

// newRule reads a rule from struct fib_rule_hdr, which has the layout of rtmsg.
func newRule(m []byte) rule {
	h, attrs := vnl.DeserializeRtMsg(m), nl.Attributes(m[unix.SizeofRtMsg:])
	r := rule{
		ipv6: h.Family == unix.AF_INET6, priority: attrs.Int(unix.FRA_PRIORITY, 0),
		selective: h.Dst_len != 0 || h.Tos != 0 || h.Flags&unix.FIB_RULE_INVERT != 0,
	}
	if h.Type == unix.FR_ACT_TO_TBL {
		r.table = attrs.Int(unix.FRA_TABLE, int(h.Table))
	}
	for attr, value := range attrs.All() {
		switch attr {
		case unix.FRA_SRC:
			r.from = netip.PrefixFrom(addressOf(value), int(h.Src_len))
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP: // -1: none
			r.selective = r.selective || slices.ContainsFunc(value, func(b byte) bool { return b != 0xff })
		case unix.FRA_PRIORITY, unix.FRA_TABLE, unix.FRA_PROTOCOL: // the last is who made it
		default:
			r.selective = true
		}
	}
	return r
}
