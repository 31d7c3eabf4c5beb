package bridge

import (
	"fmt"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

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

// Do makes it.
func (o addBridge) Do(k *engine.Kernel) error {
	info := vnl.NewIfInfomsg(unix.AF_UNSPEC)
	info.Index, info.Flags, info.Change = int32(o.index), unix.IFF_NOARP, unix.IFF_NOARP
	linkInfo := vnl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	linkInfo.AddRtAttr(vnl.IFLA_INFO_KIND, []byte(nl.KindBridge))
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
func (o addBridge) Supported(k *engine.Kernel) error {
	return k.KindSupported(nl.KindBridge, "CONFIG_BRIDGE")
}

// groupForward is which groups (allGroups) the bridge passes on from a port.
var groupForward = &engine.Property[uint16]{
	Text: "ip link set %s type bridge_slave group_fwd_mask %s",
	Do: func(c *nl.Conn, l nl.Ref, groups uint16) error {
		return c.SetPort(l, vnl.IFLA_BRPORT_GROUP_FWD_MASK, vnl.Uint16Attr(groups))
	},
}

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
