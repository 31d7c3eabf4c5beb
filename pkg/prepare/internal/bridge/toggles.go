package bridge

import (
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// toggle is a setting of the bridge, or of a port, that is on or off. As somebody may
// have set it, frames between the VM and the network are lost, or more than once there.
type toggle struct {
	attr   uint16
	name   string // in the words of ip(8)
	want   bool
	change *engine.Property[bool]
}

// All ports have the first ones. The VM's frames are flooded, since the bridge learns
// nothing at the uplink; a locked port wants its peers to be known; one that answers ARP
// or suppresses neighbors is left out when questions are flooded (br_flood,
// net/bridge/br_forward.c).
var (
	tapToggles = []toggle{
		portToggle(vnl.IFLA_BRPORT_UNICAST_FLOOD, "flood", true),
		portToggle(vnl.IFLA_BRPORT_MCAST_FLOOD, "mcast_flood", true),
		portToggle(vnl.IFLA_BRPORT_BCAST_FLOOD, "bcast_flood", true),
		portToggle(vnl.IFLA_BRPORT_ISOLATED, "isolated", false),
		portToggle(vnl.IFLA_BRPORT_LOCKED, "locked", false),
		portToggle(vnl.IFLA_BRPORT_MODE, "hairpin", false),
		portToggle(vnl.IFLA_BRPORT_PROXYARP, "proxy_arp", false),
		portToggle(vnl.IFLA_BRPORT_NEIGH_SUPPRESS, "neigh_suppress", false),
	}
	uplinkToggles = append([]toggle{portToggle(vnl.IFLA_BRPORT_LEARNING, "learning", false)}, tapToggles...)

	// newPort is what the kernel makes of a link that joins a bridge (new_nbp,
	// net/bridge/br_if.c).
	newPort = nl.Settings(0).With(vnl.IFLA_BRPORT_LEARNING).With(vnl.IFLA_BRPORT_UNICAST_FLOOD).
		With(vnl.IFLA_BRPORT_MCAST_FLOOD).With(vnl.IFLA_BRPORT_BCAST_FLOOD)
)

// bridgeToggles are off when addBridge has made it. With those of br_netfilter the pod's
// iptables sees frames whatever the sysctls say.
var bridgeToggles = []toggle{
	bridgeToggle(vnl.IFLA_BR_STP_STATE, "stp_state", vnl.Uint32Attr),
	bridgeToggle(vnl.IFLA_BR_VLAN_FILTERING, "vlan_filtering", oneByte),
	bridgeToggle(vnl.IFLA_BR_MCAST_SNOOPING, "mcast_snooping", oneByte),
	bridgeToggle(vnl.IFLA_BR_NF_CALL_IPTABLES, "nf_call_iptables", oneByte),
	bridgeToggle(vnl.IFLA_BR_NF_CALL_IP6TABLES, "nf_call_ip6tables", oneByte),
	bridgeToggle(vnl.IFLA_BR_NF_CALL_ARPTABLES, "nf_call_arptables", oneByte),
}

// tapPort is what the tap's port is to have. Without the guard the VM may send from other
// MACs than its own, which others may have later: the virtual one of VRRP, those of machines
// within it. Nothing else at the bridge would notice, since it learns nothing at the uplink.
// A tap that learns because it was prepared before is as planned nevertheless.
func (w wiring) tapPort() []toggle {
	if w.NIC.Guard {
		return tapToggles // the VM's MAC is all there is to learn
	}
	return uplinkToggles
}

func oneByte(v uint32) []byte { return []byte{byte(v)} }

var onOrOff = engine.Either("on", "off")

func portToggle(attr uint16, name string, want bool) toggle {
	return toggle{attr, name, want, &engine.Property[bool]{
		Text: "ip link set %s type bridge_slave " + name + " %s", Words: onOrOff,
		Do: func(c *nl.Conn, l nl.Ref, on bool) error { return c.SetPort(l, int(attr), oneByte(number(on))) },
	}}
}

func bridgeToggle(attr uint16, name string, encode func(uint32) []byte) toggle {
	return toggle{attr, name, false, &engine.Property[bool]{
		Text: "ip link set %s type bridge " + name + " %s", Words: engine.Either("1", "0"),
		Do: func(c *nl.Conn, l nl.Ref, on bool) error { return c.SetBridge(l, int(attr), encode(number(on))) },
	}}
}

func number(on bool) uint32 {
	if on {
		return 1
	}
	return 0
}

// stateForwarding is BR_STATE_FORWARDING (linux/if_bridge.h).
const stateForwarding = 3

// portState is a port's state. One that has lost its carrier meanwhile is disabled, and
// forwards once it has one again.
var portState = &engine.Property[uint8]{
	Text: "bridge link set dev %s state %s",
	Do: func(c *nl.Conn, l nl.Ref, state uint8) error {
		return engine.Ignore(c.SetPort(l, vnl.IFLA_BRPORT_STATE, []byte{state}), unix.ENETDOWN)
	},
}
