package prepare

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// op is one change of the namespace. It is data: its String is the change in
// the words of ip(8), bridge(8), nft(8) or sysctl(8), and it knows the change
// that undoes it; nil: it stays. do is in do.go.
type op interface {
	fmt.Stringer
	do(k *kernel) error
	inverse() op
}

// addTap makes a persistent tap device. It has its MAC before it persists: by that
// it is told from others.
type addTap struct {
	tap   Tap
	index int  // of the link; 0: the kernel's choice
	again bool // the pod is prepared, and somebody has deleted the tap
}

func (o addTap) String() string {
	s := "ip tuntap add dev " + o.tap.Name + " mode tap vnet_hdr"
	if o.tap.Queues > 1 {
		s += " multi_queue"
	}
	if owner := o.tap.owner(); owner != (Owner{-1, -1}) {
		s += " " + owner.String()
	}
	return s + "\n" + setMAC{link: o.tap.Name, to: o.tap.MAC}.String()
}

func (o addTap) inverse() op { return delLink{name: o.tap.Name, rebuild: sequence{o}} }

// addBridge makes a bridge that forwards at once and is silent itself.
type addBridge struct {
	name string
	// mac is always set, also so that a bridge without ports has no carrier:
	// the kernel looks at the ports when it gets one.
	mac   mac.Addr
	mtu   int
	index int // 0: the kernel's choice
}

func (o addBridge) String() string {
	return fmt.Sprintf("ip link add %s address %s mtu %d arp off type bridge stp_state 0 forward_delay 0 mcast_snooping 0", o.name, o.mac, o.mtu)
}

func (o addBridge) inverse() op { return delLink{name: o.name, rebuild: sequence{o}} }

// delLink deletes a device; rebuild makes it again as it was.
type delLink struct {
	name    string
	rebuild sequence
}

func (o delLink) String() string { return "ip link delete " + o.name }
func (o delLink) inverse() op    { return o.rebuild }

// sequence is several changes as one.
type sequence []op

func (s sequence) String() string {
	lines := make([]string, len(s))
	for i, o := range s {
		lines[i] = o.String()
	}
	return strings.Join(lines, "\n")
}

func (s sequence) inverse() op {
	var inv sequence
	for _, o := range slices.Backward(s) {
		if undo := o.inverse(); undo != nil {
			inv = append(inv, undo)
		}
	}
	return inv
}

// setUp sets a link up or down.
type setUp struct {
	link string
	up   bool
}

func (o setUp) String() string {
	if o.up {
		return "ip link set " + o.link + " up"
	}
	return "ip link set " + o.link + " down"
}

func (o setUp) inverse() op { return setUp{o.link, !o.up} }

// rename gives a link another name.
type rename struct {
	from, to string
}

func (o rename) String() string { return "ip link set " + o.from + " name " + o.to }
func (o rename) inverse() op    { return rename{o.to, o.from} }

// renameDown is rename of a link that is down.
type renameDown struct{ rename }

func (o renameDown) inverse() op { return renameDown{rename{o.to, o.from}} }

// setMAC changes a link's MAC.
type setMAC struct {
	link     string
	from, to mac.Addr
}

func (o setMAC) String() string { return "ip link set " + o.link + " address " + o.to.String() }
func (o setMAC) inverse() op    { return setMAC{o.link, o.to, o.from} }

// setMACDown is setMAC of a link that is down.
type setMACDown struct{ setMAC }

func (o setMACDown) inverse() op { return setMACDown{setMAC{o.link, o.to, o.from}} }

// setMTU changes a link's MTU.
type setMTU struct {
	link     string
	from, to int
}

func (o setMTU) String() string { return fmt.Sprintf("ip link set %s mtu %d", o.link, o.to) }
func (o setMTU) inverse() op    { return setMTU{o.link, o.to, o.from} }

// setAddrGenMode changes how the kernel makes IPv6 link-local addresses
// (IN6_ADDR_GEN_MODE_EUI64, …, linux/if_link.h).
type setAddrGenMode struct {
	link     string
	from, to int
}

// addrGenModes are ip(8)'s words.
var addrGenModes = []string{"eui64", "none", "stable_secret", "random"}

const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE

func (o setAddrGenMode) String() string {
	return "ip link set " + o.link + " addrgenmode " + addrGenModes[o.to]
}

func (o setAddrGenMode) inverse() op { return setAddrGenMode{o.link, o.to, o.from} }

// setMaster makes a link a bridge's port; to "" takes it out.
type setMaster struct {
	link     string
	from, to string
}

func (o setMaster) String() string {
	if o.to == "" {
		return "ip link set " + o.link + " nomaster"
	}
	return "ip link set " + o.link + " master " + o.to
}

func (o setMaster) inverse() op { return setMaster{o.link, o.to, o.from} }

// setLearning says whether a bridge learns MACs from a port.
type setLearning struct {
	port string
	on   bool
}

func (o setLearning) String() string {
	if o.on {
		return "bridge link set dev " + o.port + " learning on"
	}
	return "bridge link set dev " + o.port + " learning off"
}

func (o setLearning) inverse() op { return setLearning{o.port, !o.on} }

// change adds or deletes an address, a route or a neighbour by the kernel's own
// message.
type change struct {
	kind    string // addr, route, neigh: ip(8)'s object
	add     bool
	text    string
	message []byte
	first   bool // a route that is added in front of its rivals
}

func (o change) String() string {
	ip := "ip "
	// A default route without a gateway is one of IPv4 to ip(8).
	if len(o.message) > 0 && o.message[0] == unix.AF_INET6 && strings.Contains(o.text, "default") {
		ip = "ip -6 "
	}
	switch {
	case o.add && o.first:
		return ip + o.kind + " prepend " + o.text
	case o.add:
		return ip + o.kind + " add " + o.text
	}
	return ip + o.kind + " del " + o.text
}

func (o change) inverse() op {
	o.add = !o.add
	return o
}

// othersRoute adds a route that is not the pod interface's alone. That it can't
// be added, for what has become of the others, stops nothing.
type othersRoute struct{ change }

// placeAddress adds an address without a route to its network, or deletes it.
type placeAddress struct {
	link string
	addr discover.Address
	add  bool
}

func (o placeAddress) String() string {
	if o.add {
		return "ip addr add " + o.addr.Prefix.String() + " dev " + o.link + " noprefixroute"
	}
	return "ip addr del " + o.addr.Prefix.String() + " dev " + o.link
}

func (o placeAddress) inverse() op {
	o.add = !o.add
	return o
}

// setKnob writes a sysctl.
type setKnob struct {
	name     string // as sysctl(8) writes it
	from, to string
}

func (o setKnob) String() string { return "sysctl -w " + o.name + "=" + o.to }
func (o setKnob) inverse() op    { return setKnob{o.name, o.to, o.from} }
