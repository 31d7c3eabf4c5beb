package nl

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
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
	Other   []string // IFLA_ALT_IFNAME: names that it has besides
	Alias   string   // IFLA_IFALIAS: what somebody wrote on it
	Kind    string   // IFLA_INFO_KIND: veth, bridge, tun, …; empty for hardware
	Type    uint16   // ARPHRD_ETHER, ARPHRD_NONE, … (linux/if_arp.h)
	MAC     mac.Addr // zero if the link has none
	MTU     int
	Flags   uint32 // IFF_UP, IFF_LOWER_UP, … (linux/if.h)
	Master  int    // index of the bridge, bond or VRF it belongs to; 0: none
	Lower   int    // index of the link that it is made on, in this namespace; 0: none
	Carrier bool

	// AddrGenMode is how the kernel makes IPv6 link-local addresses
	// (IFLA_INET6_ADDR_GEN_MODE), or AddrGenModeUnknown.
	AddrGenMode int
	// Learning tells whether the bridge learns MACs from this port; false
	// if the link is no bridge port.
	Learning bool
	// GroupForward are the groups 01:80:c2:00:00:0x that the bridge passes on from
	// this port, a bit for each; 0 if the link is no bridge port.
	GroupForward uint16
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
	Queues     int // queues that a process has open now; 0 also if there can be just one
}

// Up reports whether the link is administratively up.
func (l Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// Running reports whether the link is up and connected, and its users know: the
// kernel tells them a moment after Carrier has changed.
func (l Link) Running() bool { return l.Flags&unix.IFF_RUNNING != 0 }

// ARP reports whether the link resolves neighbours.
func (l Link) ARP() bool { return l.Flags&unix.IFF_NOARP == 0 }

// PointToPoint reports whether the link has just one peer.
func (l Link) PointToPoint() bool { return l.Flags&unix.IFF_POINTOPOINT != 0 }

// Loopback reports whether the link is a loopback.
func (l Link) Loopback() bool { return l.Flags&unix.IFF_LOOPBACK != 0 }

// Links reads all links, in the order of their indexes.
func (c *Conn) Links() ([]Link, error) {
	mask := nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats))
	msgs, err := c.dump(unix.RTM_GETLINK, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC), mask)
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	return parseAll(msgs, parseLink)
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
	elsewhere := false // Lower is an index of another namespace
	for _, a := range attrs {
		switch attrType(a) {
		case unix.IFLA_IFNAME:
			l.Name = nl.BytesToString(a.Value)
		case unix.IFLA_ADDRESS:
			l.MAC = mac.Of(a.Value)
		case unix.IFLA_MTU:
			l.MTU = int(uint32Of(a.Value))
		case unix.IFLA_MASTER:
			l.Master = int(uint32Of(a.Value))
		case unix.IFLA_LINK:
			l.Lower = int(uint32Of(a.Value))
		case unix.IFLA_LINK_NETNSID:
			elsewhere = true
		case unix.IFLA_IFALIAS:
			l.Alias = nl.BytesToString(a.Value)
		case unix.IFLA_PROP_LIST:
			err = l.parseProperties(a.Value)
		case unix.IFLA_LINKINFO:
			err = l.parseInfo(a.Value)
		case unix.IFLA_AF_SPEC:
			err = l.parseAFSpec(a.Value)
		}
		if err != nil {
			return Link{}, false, fmt.Errorf("parse link message: %w", err)
		}
	}
	if elsewhere {
		l.Lower = 0
	}
	return l, true, nil
}

func (l *Link) parseProperties(b []byte) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if attrType(a) == unix.IFLA_ALT_IFNAME {
			l.Other = append(l.Other, nl.BytesToString(a.Value))
		}
	}
	return nil
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
		case nl.IFLA_TUN_NUM_QUEUES, nl.IFLA_TUN_NUM_DISABLED_QUEUES:
			t.Queues += int(uint32Of(a.Value))
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
		case nl.IFLA_BRPORT_GROUP_FWD_MASK:
			l.GroupForward = binary.NativeEndian.Uint16(a.Value)
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
