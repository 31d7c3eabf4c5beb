package bridge

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// kind is the kernel's and ip(8)'s word.
const kind = "bridge"

// addBridge makes a bridge that forwards at once and is silent itself. Its MAC is
// always set, also so that one without ports has no carrier: the kernel looks at the
// ports when it gets one.
type addBridge struct {
	device
	mtu   int
	index int // 0: the kernel's choice
}

func (o addBridge) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d arp off type bridge stp_state 0 forward_delay 0 mcast_snooping 0", o.Name, o.MAC, o.mtu)
}

// Inverse deletes it.
func (o addBridge) Inverse() engine.Op {
	return engine.DelLink{Name: o.Name, Rebuild: engine.Sequence{o}}
}

// Do makes it. [netlink.Bridge] knows neither stp_state nor forward_delay.
func (o addBridge) Do(k *engine.Kernel) error {
	info := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Flags, info.Change = int32(o.index), unix.IFF_NOARP, unix.IFF_NOARP
	linkInfo := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	linkInfo.AddRtAttr(vnl.IFLA_INFO_KIND, []byte(kind))
	data := linkInfo.AddRtAttr(vnl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(vnl.IFLA_BR_FORWARD_DELAY, vnl.Uint32Attr(0))
	data.AddRtAttr(vnl.IFLA_BR_STP_STATE, vnl.Uint32Attr(0))
	data.AddRtAttr(vnl.IFLA_BR_MCAST_SNOOPING, []byte{0})
	return k.Conn.Request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, info,
		vnl.NewRtAttr(unix.IFLA_IFNAME, vnl.ZeroTerminated(o.Name)),
		vnl.NewRtAttr(unix.IFLA_MTU, vnl.Uint32Attr(uint32(o.mtu))),
		vnl.NewRtAttr(unix.IFLA_ADDRESS, o.MAC[:]),
		linkInfo)
}

// Supported asks the kernel for bridges.
func (o addBridge) Supported(k *engine.Kernel) error { return k.KindSupported(kind, "CONFIG_BRIDGE") }

// What can be changed of a port: whether the bridge learns MACs from it, and which
// groups (allGroups) it passes on from it.
var (
	learning = &engine.Property[bool]{
		Text: "bridge link set dev %s learning %s", Words: engine.Either("on", "off"),
		Do: func(k *engine.Kernel, l netlink.Link, on bool) error { return k.Links.LinkSetLearning(l, on) },
	}
	groupForward = &engine.Property[uint16]{
		Text: "ip link set %s type bridge_slave group_fwd_mask %s",
		Do: func(k *engine.Kernel, l netlink.Link, groups uint16) error {
			return k.Links.LinkSetBRSlaveGroupFwdMask(l, groups)
		},
	}
)

// allGroups are the groups that bridges keep for themselves, 01:80:c2:00:00:00 to
// 0f, of LLDP, LACP, 802.1X and others, but for that of pause frames, which none
// passes on (BR_GROUPFWD_MACPAUSE, net/bridge/br_private.h).
const allGroups = 0xffff &^ (1 << 1)

// nearestBridge is LLDP's group, 01:80:c2:00:00:0e. A frame to it that a bridge does
// not pass on goes to the stack of the port itself, whatever is in it, and past all
// hooks of the bridge (br_handle_frame, net/bridge/br_input.c).
const nearestBridge = 1 << 0xe

// groupForward is which of these groups both ports pass on. A VM on a network without
// IPAM is on it as if by a cable; what a pod gets an address in is the node's affair.
// There the guard drops what is to such a group, and has to see it for that.
func (w wiring) groupForward() uint16 {
	if w.NIC.Addressed {
		return nearestBridge
	}
	return allGroups
}

// placeAddress adds an address without a route to its network, and without asking
// who else has it, or deletes it.
type placeAddress struct {
	link   string
	prefix netip.Prefix
	add    bool
}

func (o placeAddress) String() string {
	if !o.add {
		return "ip addr del " + o.prefix.String() + " dev " + o.link
	}
	s := "ip addr add " + o.prefix.String() + " dev " + o.link + " noprefixroute"
	if o.prefix.Addr().Is6() {
		s += " nodad"
	}
	return s
}

// Inverse deletes or adds it.
func (o placeAddress) Inverse() engine.Op { return placeAddress{o.link, o.prefix, !o.add} }

// Do adds it, if it is not there, or deletes it, if it is.
func (o placeAddress) Do(k *engine.Kernel) error {
	addr := o.prefix.Addr()
	a := &netlink.Addr{
		IPNet:     &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(o.prefix.Bits(), addr.BitLen())},
		Flags:     unix.IFA_F_NOPREFIXROUTE,
		Broadcast: net.IPv4zero, // none, rather than the library's choice
	}
	if addr.Is6() {
		a.Flags |= unix.IFA_F_NODAD
	}
	return k.Change(o.link, func(l netlink.Link) error {
		if o.add {
			return engine.Ignore(k.Links.AddrAdd(l, a), unix.EEXIST)
		}
		return engine.Ignore(k.Links.AddrDel(l, a), unix.EADDRNOTAVAIL)
	})
}
