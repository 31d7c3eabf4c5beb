package nl

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// rtextFilterSkipStats keeps counters, which nobody here reads, out of a dump
// of links (RTEXT_FILTER_SKIP_STATS, linux/rtnetlink.h).
const rtextFilterSkipStats = 1 << 3

// KindBridge is the Kind of a link whose ports other links are.
const KindBridge = "bridge"

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
	// Bridge are the settings of a bridge (IFLA_BR_…), Port those of the port of one
	// (IFLA_BRPORT_…); none if the link is not that.
	Bridge, Port Settings
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

// InUse reports whether somebody has a tap open: it has a carrier then, or queues if
// the carrier was taken away.
func (l Link) InUse() bool { return l.Carrier || l.Tun != nil && l.Tun.Queues > 0 }

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
	links := make([]Link, len(msgs))
	for i, m := range msgs {
		links[i] = parseLink(m)
	}
	return links, nil
}

// Index returns the index of the link of that name. The error wraps [unix.ENODEV] if there
// is none. The kernel answers by ioctl(2) without the lock that each change of a link
// takes (dev_ioctl, net/core/dev_ioctl.c), and composes no message of all about the link.
func (c *Conn) Index(name string) (int, error) {
	answer, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(c.socket.fd, unix.SIOCGIFINDEX, answer)
	}
	if err != nil {
		return 0, fmt.Errorf("find link %s: %w", name, err)
	}
	return int(answer.Uint32()), nil
}

// Link reads the link with that name. The error is [unix.ENODEV] if there is none.
func (c *Conn) Link(name string) (Link, error) {
	mask := nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStats))
	answers, err := c.socket.Execute(unix.RTM_GETLINK, 0, serialize([]nl.NetlinkRequestData{
		nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)), mask,
	}))
	msgs := payloads(answers, unix.RTM_NEWLINK)
	if err == nil && len(msgs) == 0 {
		err = unix.ENODEV
	}
	if err != nil {
		return Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	return parseLink(msgs[0]), nil
}

func parseLink(m []byte) Link {
	info := nl.DeserializeIfInfomsg(m)
	a := Attributes(m[unix.SizeofIfInfomsg:])
	l := Link{
		Index: int(info.Index), Type: info.Type, Flags: info.Flags, Carrier: info.Flags&unix.IFF_LOWER_UP != 0,
		Name: a.Text(unix.IFLA_IFNAME), Alias: a.Text(unix.IFLA_IFALIAS), MAC: mac.Of(a.Get(unix.IFLA_ADDRESS)),
		MTU: a.Int(unix.IFLA_MTU, 0), Master: a.Int(unix.IFLA_MASTER, 0),
		AddrGenMode: a.In(unix.IFLA_AF_SPEC).In(unix.AF_INET6).Int(unix.IFLA_INET6_ADDR_GEN_MODE, AddrGenModeUnknown),
	}
	for attr, name := range a.In(unix.IFLA_PROP_LIST).All() {
		if attr == unix.IFLA_ALT_IFNAME {
			l.Other = append(l.Other, unix.ByteSliceToString(name))
		}
	}
	if a.Get(unix.IFLA_LINK_NETNSID) == nil { // else it is an index of another namespace
		l.Lower = a.Int(unix.IFLA_LINK, 0)
	}
	kind := a.In(unix.IFLA_LINKINFO)
	switch l.Kind = kind.Text(nl.IFLA_INFO_KIND); l.Kind {
	case "tun":
		l.Tun = parseTun(kind.In(nl.IFLA_INFO_DATA))
	case KindBridge:
		l.Bridge = settingsOf(kind.In(nl.IFLA_INFO_DATA))
	}
	if kind.Text(nl.IFLA_INFO_SLAVE_KIND) == KindBridge {
		port := kind.In(nl.IFLA_INFO_SLAVE_DATA)
		l.Port = settingsOf(port)
		l.PortState = uint8(port.Int(nl.IFLA_BRPORT_STATE, 0))
		l.GroupForward = uint16(port.Int(nl.IFLA_BRPORT_GROUP_FWD_MASK, 0))
	}
	return l
}

// Settings are those attributes of an object that are numbers other than 0, as a setting
// is that is on.
type Settings uint64

// settingsOf are those of an object with these attributes.
func settingsOf(a Attributes) (on Settings) {
	for attr, value := range a.All() {
		if len(value) <= 4 && slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) {
			on = on.With(attr)
		}
	}
	return on
}

// On tells whether a setting is on. One that the kernel does not have is off.
func (s Settings) On(attr uint16) bool { return s&Settings(0).With(attr) != 0 }

// With is s with a setting on.
func (s Settings) With(attr uint16) Settings { return s | 1<<attr }

func parseTun(a Attributes) *Tun {
	if a == nil { // an older kernel does not describe it
		return nil
	}
	return &Tun{
		Tap:        a.Int(nl.IFLA_TUN_TYPE, 0) == unix.IFF_TAP,
		MultiQueue: a.Int(nl.IFLA_TUN_MULTI_QUEUE, 0) != 0,
		Persist:    a.Int(nl.IFLA_TUN_PERSIST, 0) != 0,
		Owner:      a.Int(nl.IFLA_TUN_OWNER, -1),
		Group:      a.Int(nl.IFLA_TUN_GROUP, -1),
		Queues:     a.Int(nl.IFLA_TUN_NUM_QUEUES, 0) + a.Int(nl.IFLA_TUN_NUM_DISABLED_QUEUES, 0),
	}
}
