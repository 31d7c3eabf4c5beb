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

// rtextFilterSkipStats keeps counters, which nobody here reads, out of a dump
// of links (RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h).
const rtextFilterSkipStats = 1 << 3

// AddrGenModeUnknown is a Link's AddrGenMode where the link has no IPv6.
const AddrGenModeUnknown = -1

// Link is a network interface (linux/if_link.h).
type Link struct {
	Index   int
	Name    string
	Kind    string           // IFLA_INFO_KIND: veth, bridge, tun, …; empty for hardware
	Type    uint16           // ARPHRD_ETHER, ARPHRD_NONE, … (linux/if_arp.h)
	MAC     net.HardwareAddr // nil if the link has none or it is all zero
	MTU     int
	Flags   uint32 // IFF_UP, IFF_LOWER_UP, … (linux/if.h)
	Master  int    // index of the bridge, bond or VRF it belongs to; 0: none
	Carrier bool

	// AddrGenMode is how the kernel makes IPv6 link-local addresses
	// (IFLA_INET6_ADDR_GEN_MODE), or AddrGenModeUnknown.
	AddrGenMode int
	// Learning tells whether the bridge learns MACs from this port; false
	// if the link is no bridge port.
	Learning bool
	// PortState is the bridge port's state (BR_STATE_FORWARDING, …), 0 if
	// the link is no bridge port.
	PortState uint8
	// Tun is set for tun and tap devices.
	Tun *Tun
}

// Tun describes a tun or tap device (linux/if_tun.h).
type Tun struct {
	Tap        bool
	VNetHdr    bool
	MultiQueue bool
	Persist    bool
	Owner      int // uid; -1: anyone with CAP_NET_ADMIN
	Group      int // gid; -1: likewise
	Queues     int // queues that a process has open now
}

// Up reports whether the link is administratively up.
func (l Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// ARP reports whether the link resolves neighbours.
func (l Link) ARP() bool { return l.Flags&unix.IFF_NOARP == 0 }

// PointToPoint reports whether the link has just one peer.
func (l Link) PointToPoint() bool { return l.Flags&unix.IFF_POINTOPOINT != 0 }

// Loopback reports whether the link is a loopback.
func (l Link) Loopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

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
	NextHops    int // how many links it leaves by
	Table       int
	Type        uint8
	Protocol    uint8
	Scope       uint8
	OnLink      bool // RTNH_F_ONLINK: the gateway need not be in a connected network
	Destination netip.Prefix
	Gateway     netip.Addr // zero: the destination is on the link
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

// Links reads all links, in the order of their indexes.
func (c *Conn) Links() ([]Link, error) {
	mask := nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats))
	msgs, err := c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), mask)
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return parseAll(msgs, parseLink)
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

func parseLink(m []byte) (Link, bool, error) {
	attrs, err := attributes("link", m, unix.SizeofIfInfomsg)
	if err != nil {
		return Link{}, false, err
	}
	info := nl.DeserializeIfInfomsg(m)
	l := Link{
		Index: int(info.Index), Type: info.Type, Flags: info.Flags,
		Carrier: info.Flags&unix.IFF_LOWER_UP != 0, AddrGenMode: AddrGenModeUnknown,
	}
	for _, a := range attrs {
		switch attrType(a) {
		case unix.IFLA_IFNAME:
			l.Name = nl.BytesToString(a.Value)
		case unix.IFLA_ADDRESS:
			if slices.ContainsFunc(a.Value, func(b byte) bool { return b != 0 }) {
				l.MAC = slices.Clone(a.Value)
			}
		case unix.IFLA_MTU:
			l.MTU = int(uint32Of(a.Value))
		case unix.IFLA_MASTER:
			l.Master = int(uint32Of(a.Value))
		case unix.IFLA_LINKINFO:
			err = l.parseInfo(a.Value)
		case unix.IFLA_AF_SPEC:
			err = l.parseAFSpec(a.Value)
		}
		if err != nil {
			return Link{}, false, fmt.Errorf("parse link message: %w", err)
		}
	}
	return l, true, nil
}

func (l *Link) parseInfo(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	var slaveKind string
	for _, a := range attrs {
		switch attrType(a) {
		case nl.IFLA_INFO_KIND:
			l.Kind = nl.BytesToString(a.Value)
		case nl.IFLA_INFO_SLAVE_KIND:
			slaveKind = nl.BytesToString(a.Value)
		case nl.IFLA_INFO_DATA:
			if l.Kind == "tun" {
				err = l.parseTun(a.Value)
			}
		case nl.IFLA_INFO_SLAVE_DATA:
			if slaveKind == "bridge" {
				err = l.parsePort(a.Value)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Link) parseTun(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	t := &Tun{Owner: -1, Group: -1}
	for _, a := range attrs {
		switch attrType(a) {
		case nl.IFLA_TUN_TYPE:
			t.Tap = a.Value[0] == unix.IFF_TAP
		case nl.IFLA_TUN_VNET_HDR:
			t.VNetHdr = a.Value[0] != 0
		case nl.IFLA_TUN_MULTI_QUEUE:
			t.MultiQueue = a.Value[0] != 0
		case nl.IFLA_TUN_PERSIST:
			t.Persist = a.Value[0] != 0
		case nl.IFLA_TUN_OWNER:
			t.Owner = int(uint32Of(a.Value))
		case nl.IFLA_TUN_GROUP:
			t.Group = int(uint32Of(a.Value))
		case nl.IFLA_TUN_NUM_QUEUES:
			t.Queues = int(uint32Of(a.Value))
		}
	}
	l.Tun = t
	return nil
}

func (l *Link) parsePort(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		switch attrType(a) {
		case nl.IFLA_BRPORT_LEARNING:
			l.Learning = a.Value[0] != 0
		case nl.IFLA_BRPORT_STATE:
			l.PortState = a.Value[0]
		}
	}
	return nil
}

// parseAFSpec finds IFLA_AF_SPEC/AF_INET6/IFLA_INET6_ADDR_GEN_MODE.
func (l *Link) parseAFSpec(b []byte) error {
	families, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, f := range families {
		if attrType(f) != unix.AF_INET6 {
			continue
		}
		attrs, err := nl.ParseRouteAttr(f.Value)
		if err != nil {
			return err
		}
		for _, a := range attrs {
			if attrType(a) == unix.IFLA_INET6_ADDR_GEN_MODE {
				l.AddrGenMode = int(a.Value[0])
			}
		}
	}
	return nil
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
		OnLink: h.Flags&unix.RTNH_F_ONLINK != 0, NextHops: 1, Message: slices.Clone(m),
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
			r.Index, r.NextHops = nextHops(a.Value)
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

// nextHops returns the first link of a multipath route and how many there are.
func nextHops(b []byte) (index, n int) {
	for len(b) >= unix.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(b))
		if n == 0 {
			index = int(uint32Of(b[4:8]))
		}
		n++
		size = (size + unix.RTA_ALIGNTO - 1) &^ (unix.RTA_ALIGNTO - 1)
		if size < unix.SizeofRtNexthop || size > len(b) {
			break
		}
		b = b[size:]
	}
	return index, n
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

// Index returns the index of the link with that name. The error is
// [unix.ENODEV] if there is none.
func (c *Conn) Index(name string) (int, error) {
	mask := nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats))
	msgs, err := c.execute(unix.RTM_GETLINK, 0, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC),
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), mask)
	if err == nil && len(msgs) == 0 {
		err = unix.ENODEV
	}
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	return int(nl.DeserializeIfInfomsg(msgs[0]).Index), nil
}
