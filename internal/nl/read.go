package nl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Address is an address of a link (linux/if_addr.h).
type Address struct {
	Index   int
	Prefix  netip.Prefix
	Scope   uint8  // RT_SCOPE_UNIVERSE, …
	Flags   uint32 // IFA_F_PERMANENT, IFA_F_TENTATIVE, …
	Message []byte // ifaddrmsg and attributes as the kernel sent them
}

// Route is a route of any table and family (linux/rtnetlink.h).
type Route struct {
	Index       int // of the link it leaves by; that of the first next hop if there are several; 0: none
	Table       int
	Type        uint8
	Protocol    uint8
	Scope       uint8
	OnLink      bool // RTNH_F_ONLINK: the gateway need not be in a connected network
	Destination netip.Prefix
	Gateway     netip.Addr // of the first next hop; zero: the destination is on the link
	Source      netip.Addr // preferred source; zero: none
	MTU         int        // 0: the link's
	Metric      int
	Message     []byte // rtmsg and attributes as the kernel sent them
}

// Neighbor is an entry of the neighbour table (linux/neighbour.h).
type Neighbor struct {
	Index   int
	State   uint16 // NUD_PERMANENT, …
	Address netip.Addr
	MAC     net.HardwareAddr
	Message []byte // ndmsg and attributes as the kernel sent them
}

// Addresses reads all addresses of all links, in the kernel's order.
func (c *Conn) Addresses() ([]Address, error) {
	msgs, err := c.dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return parseAll(msgs, parseAddress)
}

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
		rs, err := parseAll(msgs, parseRoute)
		if err != nil {
			return nil, err
		}
		routes = append(routes, rs...)
	}
	return routes, nil
}

// Neighbors reads the neighbour tables of both families.
func (c *Conn) Neighbors() ([]Neighbor, error) {
	msgs, err := c.dump(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	return parseAll(msgs, parseNeighbor)
}

func parseAll[T any](msgs [][]byte, parse func([]byte) (T, bool, error)) ([]T, error) {
	out := make([]T, 0, len(msgs))
	for _, m := range msgs {
		v, ok, err := parse(m)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, v)
		}
	}
	return out, nil
}

// attributes splits what follows a fixed header of the given size.
func attributes(what string, m []byte, header int) ([]syscall.NetlinkRouteAttr, error) {
	if len(m) < header {
		return nil, fmt.Errorf("parse %s message: %d bytes, want at least %d", what, len(m), header)
	}
	attrs, err := nl.ParseRouteAttr(m[header:])
	if err != nil {
		return nil, fmt.Errorf("parse %s message: %w", what, err)
	}
	return attrs, nil
}

// attrType strips the flags that newer kernels set on nested attributes.
func attrType(a syscall.NetlinkRouteAttr) uint16 {
	return a.Attr.Type & nl.NLA_TYPE_MASK
}

func parseAddress(m []byte) (Address, bool, error) {
	attrs, err := attributes("address", m, unix.SizeofIfAddrmsg)
	if err != nil {
		return Address{}, false, err
	}
	bits := int(m[1])
	a := Address{
		Index: int(uint32Of(m[4:8])), Flags: uint32(m[2]), Scope: m[3],
		Message: slices.Clone(m),
	}
	var address, local netip.Addr
	for _, at := range attrs {
		switch attrType(at) {
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(at.Value)
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(at.Value)
		case unix.IFA_FLAGS:
			a.Flags = uint32Of(at.Value)
		}
	}
	// IFA_ADDRESS is the peer's where there is one (linux/if_addr.h).
	if local.IsValid() {
		address = local
	}
	a.Prefix = netip.PrefixFrom(address, bits)
	return a, a.Prefix.IsValid(), nil
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
		Table: int(h.Table), Type: h.Type, Protocol: h.Protocol, Scope: h.Scope,
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
		case unix.RTA_OIF:
			r.Index = int(uint32Of(a.Value))
		case unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(a.Value)
		case unix.RTA_TABLE:
			r.Table = int(uint32Of(a.Value))
		case unix.RTA_PRIORITY:
			r.Metric = int(uint32Of(a.Value))
		case unix.RTA_METRICS:
			r.MTU, err = routeMTU(a.Value)
		case unix.RTA_MULTIPATH:
			r.Index, r.Gateway, err = firstNextHop(a.Value)
		}
		if err != nil {
			return Route{}, false, fmt.Errorf("parse route message: %w", err)
		}
	}
	r.Destination = netip.PrefixFrom(destination, int(h.Dst_len))
	return r, r.Destination.IsValid(), nil
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

// firstNextHop returns the link and the gateway of a multipath route's first
// next hop (struct rtnexthop, linux/rtnetlink.h).
func firstNextHop(b []byte) (index int, gateway netip.Addr, err error) {
	if len(b) < unix.SizeofRtNexthop {
		return 0, gateway, nil
	}
	size := int(binary.NativeEndian.Uint16(b))
	if size < unix.SizeofRtNexthop || size > len(b) {
		return 0, gateway, fmt.Errorf("next hop has %d bytes of %d", size, len(b))
	}
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofRtNexthop:size])
	if err != nil {
		return 0, gateway, err
	}
	for _, a := range attrs {
		if attrType(a) == unix.RTA_GATEWAY {
			gateway, _ = netip.AddrFromSlice(a.Value)
		}
	}
	return int(uint32Of(b[4:8])), gateway, nil
}

func parseNeighbor(m []byte) (Neighbor, bool, error) {
	attrs, err := attributes("neighbour", m, unix.SizeofNdMsg)
	if err != nil {
		return Neighbor{}, false, err
	}
	n := Neighbor{
		Index: int(uint32Of(m[4:8])), State: binary.NativeEndian.Uint16(m[8:10]),
		Message: slices.Clone(m),
	}
	for _, a := range attrs {
		switch attrType(a) {
		case unix.NDA_DST:
			n.Address, _ = netip.AddrFromSlice(a.Value)
		case unix.NDA_LLADDR:
			n.MAC = slices.Clone(a.Value)
		}
	}
	return n, n.Address.IsValid(), nil
}

func uint32Of(b []byte) uint32 {
	return binary.NativeEndian.Uint32(b)
}
