package nl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Route is a route of any table and family (linux/rtnetlink.h).
type Route struct {
	Links       []int // indexes of the links it leaves by, one for each next hop; none: it leaves by none
	Table       int
	Type        uint8
	Protocol    uint8
	Scope       uint8
	TOS         uint8 // only packets with this type of service take it; 0: all do
	OnLink      bool  // RTNH_F_ONLINK: the gateway need not be in a connected network
	Destination netip.Prefix
	From        netip.Prefix // only packets from here take it; zero: all do
	Gateway     netip.Addr   // of the first next hop, of either family (RTA_VIA); zero: the destination is on the link
	Source      netip.Addr   // preferred source; zero: none
	MTU         int          // 0: the link's
	Metric      int
	Expires     bool   // it ends by itself, as what a router advertised does
	Encap       bool   // packets are encapsulated (MPLS, seg6, …)
	NextHop     uint32 // id of the nexthop object that it goes by; 0: it has its next hops itself
	Message     []byte // rtmsg and attributes as the kernel sent them
}

// AttrNextHopID is RTA_NH_ID (linux/rtnetlink.h).
const AttrNextHopID = 30

// Routes reads the routes of all tables and of both families, in the kernel's
// order.
func (c *Conn) Routes() ([]Route, error) {
	var routes []Route
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}}
		msgs, err := c.dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, msg)
		if err != nil {
			return nil, fmt.Errorf("read routes: %w", err)
		}
		rs, err := parseAll(ofFamilies(msgs, family), parseRoute)
		if err != nil {
			return nil, err
		}
		routes = append(routes, rs...)
	}
	return routes, nil
}

func parseRoute(m []byte) (Route, bool, error) {
	attrs, err := attributes("route", m, unix.SizeofRtMsg)
	if err != nil {
		return Route{}, false, err
	}
	h := nl.DeserializeRtMsg(m)
	if h.Flags&unix.RTM_F_CLONED != 0 { // an exception that the kernel cached, no route
		return Route{}, false, nil
	}
	r := Route{
		Table: int(h.Table), Type: h.Type, Protocol: h.Protocol, Scope: h.Scope, TOS: h.Tos,
		OnLink: h.Flags&unix.RTNH_F_ONLINK != 0, Message: slices.Clone(m),
	}
	destination := netip.IPv4Unspecified()
	if h.Family == unix.AF_INET6 {
		destination = netip.IPv6Unspecified()
	}
	for _, a := range attrs {
		switch attrType(a) {
		case unix.RTA_DST:
			destination, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_SRC:
			from, _ := netip.AddrFromSlice(a.Value)
			r.From = netip.PrefixFrom(from, int(h.Src_len))
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_TABLE:
			r.Table = int(uint32Of(a.Value))
		case unix.RTA_PRIORITY:
			r.Metric = int(uint32Of(a.Value))
		case unix.RTA_METRICS:
			r.MTU, err = routeMTU(a.Value)
		case unix.RTA_MULTIPATH:
			err = r.parseNextHops(a.Value)
		case unix.RTA_CACHEINFO: // struct rta_cacheinfo: rta_expires is the third
			r.Expires = len(a.Value) >= 12 && uint32Of(a.Value[8:12]) != 0
		case AttrNextHopID:
			r.NextHop = uint32Of(a.Value)
		case unix.RTA_OIF:
			r.Links = []int{int(uint32Of(a.Value))}
		default:
			r.parseNextHop(attrType(a), a.Value)
		}
		if err != nil {
			return Route{}, false, fmt.Errorf("parse route message: %w", err)
		}
	}
	r.Destination = netip.PrefixFrom(destination, int(h.Dst_len))
	return r, r.Destination.IsValid(), nil
}

// parseNextHop reads an attribute of a next hop.
func (r *Route) parseNextHop(attr uint16, value []byte) {
	switch attr {
	case unix.RTA_GATEWAY:
		r.Gateway, _ = netip.AddrFromSlice(value)
	case unix.RTA_VIA: // struct rtvia: the family, then the address
		if len(value) > 2 {
			r.Gateway, _ = netip.AddrFromSlice(value[2:])
		}
	case unix.RTA_ENCAP:
		r.Encap = true
	}
}

func routeMTU(b []byte) (int, error) {
	metrics, err := nl.ParseRouteAttr(b)
	if err != nil {
		return 0, err
	}
	for _, m := range metrics {
		if attrType(m) == unix.RTAX_MTU {
			return int(uint32Of(m.Value)), nil
		}
	}
	return 0, nil
}

// parseNextHops reads the links of all next hops of a multipath route, and the
// first next hop.
func (r *Route) parseNextHops(b []byte) error {
	hops, err := NextHops(b)
	if err != nil {
		return err
	}
	for i, hop := range hops {
		r.Links = append(r.Links, hop.Index())
		attrs, err := nl.ParseRouteAttr(hop.Attributes())
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if i == 0 {
				r.parseNextHop(attrType(a), a.Value)
			}
		}
	}
	return nil
}

// NextHop is one next hop of a multipath route: struct rtnexthop
// (linux/rtnetlink.h) and attributes.
type NextHop []byte

// Index is the link that it leaves by.
func (n NextHop) Index() int { return int(uint32Of(n[4:8])) }

// Attributes are its gateway and what else it has.
func (n NextHop) Attributes() []byte { return n[unix.SizeofRtNexthop:] }

// NextHops splits the value of RTA_MULTIPATH.
func NextHops(b []byte) ([]NextHop, error) {
	var hops []NextHop
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtNexthop || size > len(b) {
			return nil, fmt.Errorf("next hop has %d bytes of %d", size, len(b))
		}
		hops = append(hops, NextHop(b[:size]))
		b = b[min(len(b), (size+3)&^3):]
	}
	return hops, nil
}
