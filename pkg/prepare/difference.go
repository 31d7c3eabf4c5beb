package prepare

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Difference is one thing of a prepared pod interface that is not as planned.
type Difference struct {
	Interface string `json:"interface"` // the pod interface
	What      string `json:"what"`      // a link's name, or what else it is about
	Is        string `json:"is"`
	Want      string `json:"want"`
	Remedy    string `json:"remedy"`
}

func (d Difference) String() string { return d.What + " is " + d.Is + ", not " + d.Want }

// Missing is what a link is that does not exist.
const Missing = "missing"

// The ways out.
const (
	prepareAgain = "run virt-launcher-net prepare with the same options, or end run and start it again"
	newVM        = prepareAgain + "; then start the VM again, which still has the old tap"
	newPod       = "make the pod anew: what the CNI gave is gone"
	lookAtNode   = "look at the other end of the link, on the node: it is down, or deleted"
)

// linkDifferences tells how the plan's links differ from what the namespace has. A
// tap that nobody has open has no carrier and is no difference; nor is it one
// while its carrier comes or goes.
func (p Plan) linkDifferences(s state) []Difference {
	d := differing{iface: p.Interface.Name}
	bridge := p.bridgeDiffers(&d, s)
	uplink := p.uplinkDiffers(&d, s, bridge)
	tap := p.tapDiffers(&d, s, bridge)
	// A bridge has its ports' least MTU, unless somebody has set it.
	if l := s.link(p.Bridge.Name); l != nil && uplink && tap && l.MTU != p.MTU {
		d.add(l.Name, fmt.Sprintf("of MTU %d", l.MTU), fmt.Sprintf("of %d", p.MTU), prepareAgain)
	}
	if l := s.link(p.Interface.Name); l == nil || l.Index == p.Interface.Index {
		d.add(p.Interface.Name, Missing, "the placeholder, which has the pod's address", prepareAgain)
	}
	return d.found
}

// differing collects what differs of one pod interface.
type differing struct {
	iface string
	found []Difference
}

func (d *differing) add(what, is, want, remedy string) {
	d.found = append(d.found, Difference{d.iface, what, is, want, remedy})
}

// bridgeDiffers tells whether the bridge is there and up.
func (p Plan) bridgeDiffers(d *differing, s state) bool {
	name := p.Bridge.Name
	l := s.link(name)
	switch {
	case l == nil:
		d.add(name, Missing, "a bridge", prepareAgain)
		return false
	case l.Kind != "bridge":
		d.add(name, kindOf(*l), "a bridge", "delete it (ip link delete "+name+"), and "+prepareAgain)
		return false
	}
	d.mac(*l, p.Bridge.MAC)
	return d.up(*l)
}

// uplinkDiffers looks at the pod interface, which is a port of the bridge, and
// tells whether the bridge can have its MTU.
func (p Plan) uplinkDiffers(d *differing, s state, bridge bool) bool {
	name := p.Bridge.Uplink
	l := s.link(name)
	switch own := s.linkByIndex(p.Interface.Index); {
	case l == nil && own != nil:
		d.add(name, Missing, fmt.Sprintf("the pod's interface, which is %s now", own.Name), prepareAgain)
		return false
	case l == nil:
		d.add(name, Missing, "the pod's interface", newPod)
		return false
	case l.Index != p.Interface.Index:
		d.add(name, fmt.Sprintf("another link (index %d)", l.Index), fmt.Sprintf("the pod's interface (index %d)", p.Interface.Index), newPod)
		return false
	}
	d.mac(*l, p.Bridge.UplinkMAC)
	isPort := d.port(s, *l, p.Bridge.Name)
	if isPort && l.Learning {
		d.add(name, "a port that learns", "one that does not", prepareAgain)
	}
	if isPort {
		d.groups(*l, p.groupForward())
	}
	if d.up(*l) && !l.Carrier {
		d.add(name, "without carrier", "connected", lookAtNode)
	} else if bridge && isPort {
		d.forwarding(*l)
	}
	return d.mtu(*l, p.Interface.MTU) && isPort
}

// tapDiffers looks at the tap, and tells whether the bridge can have its MTU.
func (p Plan) tapDiffers(d *differing, s state, bridge bool) bool {
	name := p.Tap.Name
	l := s.link(name)
	if l == nil {
		d.add(name, Missing, "a tap", newVM)
		return false
	}
	if err := p.Tap.matches(*l); err != nil {
		d.add(name, kindOf(*l)+" that was not made for the VM", "the planned tap",
			err.Error()+"; stop the VM before that, and "+newVM)
		return false
	}
	if len(p.Tap.ownerOps(*l)) > 0 {
		is := Owner{l.Tun.Owner, l.Tun.Group}.String()
		if !l.Tun.Persist {
			is += " and not persistent"
		}
		d.add(name, "owned by "+is, "persistent, owned by "+p.Tap.owner().String(), prepareAgain)
	}
	d.mac(*l, p.Tap.MAC)
	isPort := d.port(s, *l, p.Bridge.Name)
	if isPort {
		d.groups(*l, p.groupForward())
	}
	if d.up(*l) && bridge && isPort {
		d.forwarding(*l)
	}
	return d.mtu(*l, p.MTU) && isPort
}

func kindOf(l nl.Link) string {
	switch {
	case l.Tun != nil && l.Tun.Tap:
		return "a tap"
	case l.Kind == "":
		return "a physical link"
	}
	return "a link of kind " + l.Kind
}

func (d *differing) up(l nl.Link) bool {
	if !l.Up() {
		d.add(l.Name, "down", "up", prepareAgain)
	}
	return l.Up()
}

func (d *differing) mac(l nl.Link, want mac.Addr) {
	if l.MAC != want {
		d.add(l.Name, "of MAC "+l.MAC.String(), "of "+want.String(), prepareAgain)
	}
}

func (d *differing) groups(l nl.Link, want uint16) {
	if l.GroupForward != want {
		d.add(l.Name, fmt.Sprintf("a port with group_fwd_mask %d", l.GroupForward), fmt.Sprintf("one with %d", want), prepareAgain)
	}
}

func (d *differing) mtu(l nl.Link, want int) bool {
	if l.MTU != want {
		d.add(l.Name, fmt.Sprintf("of MTU %d", l.MTU), fmt.Sprintf("of %d", want), prepareAgain)
	}
	return l.MTU == want
}

func (d *differing) port(s state, l nl.Link, bridge string) bool {
	is := s.master(l)
	if is == bridge {
		return true
	}
	if is == "" {
		d.add(l.Name, "no port", "a port of "+bridge, prepareAgain)
	} else {
		d.add(l.Name, "a port of "+is, "one of "+bridge, prepareAgain)
	}
	return false
}

// portStates are bridge(8)'s words for BR_STATE_DISABLED, … (linux/if_bridge.h).
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

// forwarding says if the bridge does not forward by a port that is connected. The
// kernel tells the bridge of a carrier when it also sets IFF_RUNNING
// (linkwatch_do_dev, net/core/link_watch.c), some time after IFF_LOWER_UP.
func (d *differing) forwarding(l nl.Link) {
	if !l.Running() || l.PortState == stateForwarding {
		return
	}
	is := fmt.Sprintf("in state %d", l.PortState)
	if int(l.PortState) < len(portStates) {
		is = portStates[l.PortState]
	}
	d.add(l.Name, is, portStates[stateForwarding], fmt.Sprintf("bridge link set dev %s state %d", l.Name, stateForwarding))
}

// knobDifferences tells which sysctls show the VM's frames to the pod's iptables.
// One that nobody here may change is none: prepare warns of it.
func knobDifferences(plans []Plan, knobs map[string]string) []Difference {
	var found []Difference
	for _, name := range knobNames {
		if value, ok := knobs[name]; ok && value != "0" && len(plans) > 0 {
			found = append(found, Difference{plans[0].Interface.Name, "sysctl " + name, value, "0", prepareAgain})
		}
	}
	return found
}

// tableDifferences tells which nftables tables are not as they were made.
func (p Plan) tableDifferences(s state) []Difference {
	var found []Difference
	for _, e := range p.tableErrors(s.tables, s.index) {
		what := "the port guard"
		if strings.HasPrefix(e.Table, string(netdevFamily)) {
			what = "the table of answers for neighbours"
		}
		found = append(found, Difference{e.Interface, what, "changed (" + e.Why + ")", "whole", prepareAgain})
	}
	return found
}

// Differences tells how the network namespace of the calling thread differs from
// the plans. Without the capability NET_ADMIN it does not see the port guard and
// the answers for neighbours.
func Differences(plans ...Plan) ([]Difference, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var s state
	if s.links, err = conn.Links(); err != nil {
		return nil, err
	}
	if s.knobs, _, err = readKnobs(); err != nil {
		return nil, err
	}
	if s.tables, err = readTables(); errors.Is(err, fs.ErrPermission) {
		s.tables, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	return differencesOf(s, plans), nil
}

// differencesOf looks at everything but tables that are not known, which are nil.
func differencesOf(s state, plans []Plan) []Difference {
	var found []Difference
	for _, p := range plans {
		found = slices.Concat(found, p.linkDifferences(s))
		if s.tables != nil {
			found = slices.Concat(found, p.tableDifferences(s))
		}
	}
	return append(found, knobDifferences(plans, s.knobs)...)
}
