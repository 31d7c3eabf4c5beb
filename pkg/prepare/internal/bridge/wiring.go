// Package bridge is the datapath that makes the pod interface a port of a bridge,
// beside the VM's tap. The interface is then the uplink, with another name and MAC;
// a placeholder has its name, MAC and addresses for whoever looks them up in the pod.
package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Roles of the links beside the tap.
const (
	uplinkRole      = "uplink"
	bridgeRole      = "bridge"
	placeholderRole = "placeholder"
)

// prefixes begin the names of what is made or renamed, before the pod interface's.
var prefixes = map[string]string{engine.TapRole: "tap-", bridgeRole: "br-", uplinkRole: "up-"}

// device is a link that is made, or the uplink as it is made to be.
type device struct {
	Name string   `json:"name"`
	MAC  mac.Addr `json:"mac"`
}

// wiring is the plan for one pod interface.
type wiring struct {
	engine.Base
	Uplink      device         `json:"uplink"`
	Bridge      device         `json:"bridge"`
	Placeholder device         `json:"placeholder"`
	Addresses   []netip.Prefix `json:"addresses,omitempty"` // the placeholder's
}

// Datapath is the one of this package.
type Datapath struct{}

// Wire plans how in is wired, or says why it can't be a port for the VM's MAC.
func (Datapath) Wire(in discover.Interface, o engine.Options) (engine.Wiring, error) {
	if err := usable(in); err != nil {
		return nil, err
	}
	name := func(role string) string {
		if given := o.Names[role]; given != "" {
			return given
		}
		return engine.LinkName(prefixes[role], in.Name)
	}
	w := wiring{
		Base: engine.Base{
			NIC: guest.Same(in, guest.Options{
				Tap: name(engine.TapRole), TapMAC: engine.DerivedMAC(in, engine.TapRole), MAC: o.MAC, MTU: o.MTU, Queues: o.Queues,
				NoGuard: o.NoGuard, NoIPv6: o.NoIPv6,
			}),
			TapOwner: o.TapOwner, SELinuxContext: o.SELinuxContext, Pod: in,
		},
		Uplink:      device{name(uplinkRole), engine.DerivedMAC(in, uplinkRole)},
		Bridge:      device{name(bridgeRole), engine.DerivedMAC(in, bridgeRole)},
		Placeholder: device{in.Name, in.MAC},
		Addresses:   placeholderAddresses(in),
	}
	return w, w.validate()
}

// placeholderAddresses are those that the CNI gave, but for what the kernel makes of
// the link itself.
func placeholderAddresses(in discover.Interface) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range in.Addresses {
		if addr := a.Prefix.Addr(); addr.Is4() || !addr.IsLinkLocalUnicast() && !a.FromRouter() {
			out = append(out, a.Prefix)
		}
	}
	return out
}

// Decode reads a wiring from a record.
func (d Datapath) Decode(in discover.Interface, version int, text json.RawMessage) (engine.Wiring, error) {
	if version == 1 {
		return d.decode1(in, text)
	}
	var w wiring
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, err
	}
	w.Pod = in
	c := normalize.Checks{usable(in), w.validate()}
	for _, d := range []device{w.Uplink, w.Bridge, w.Placeholder} {
		c = append(c, guest.CheckName(d.Name))
		c.That(d.MAC.IsHost(), "MAC %q of %s is not a unicast address", d.MAC, d.Name)
	}
	for _, p := range w.Addresses {
		c.That(p.IsValid(), "address %s of the placeholder is not valid", p)
	}
	c.That(w.NIC.Interface == in.Name && w.Placeholder.Name == in.Name, "it is not for %s", in.Name)
	return w, errors.Join(c...)
}

// usable says why an interface can't be a port for the VM's MAC.
func usable(in discover.Interface) error {
	if err := engine.CheckEthernet(in); err != nil {
		return err
	}
	switch {
	case in.Kind == "macvlan" || in.Kind == "macvtap":
		return fmt.Errorf("it is a %s: its parent delivers only frames for its own MAC, "+
			"so a VM behind a bridge would get none; use the datapath redirect, or give the pod a veth-based network (for example the bridge CNI plugin)", in.Kind)
	case in.Kind == "ipvlan" || in.Kind == "ipvtap":
		return fmt.Errorf("it is an %s: it has its parent's MAC and delivers by IP address, "+
			"so a VM with a MAC of its own can't be behind it; use the datapath redirect (in ipvlan's mode l2), or give the pod a veth-based network (for example the bridge CNI plugin)", in.Kind)
	case in.PointToPoint:
		return errors.New("it is a point-to-point link, which can't be a bridge port; use a veth-based network")
	case !in.ARP:
		return errors.New("it does not resolve neighbors (ARP is off), so the VM would find no gateway; " +
			"set the CNI to veth, or netkit to L2 mode")
	case in.Master != "":
		return fmt.Errorf("it already is a port of the bridge or a member of the bond or VRF %s; "+
			"take it out (ip link set %s nomaster) or name another interface", in.Master, in.Name)
	case in.TakenBy != "":
		return fmt.Errorf("the %s on it receives its frames, so a bridge can't; "+
			"delete that link, put it on another interface, or use the datapath redirect", in.TakenBy)
	case len(in.Shared) > 0:
		r := in.Shared[0]
		return fmt.Errorf("its route %s can't be restored: %s; delete it (ip route del %s), or make it use %s alone (ip route replace %s via … dev %s), or use the datapath redirect",
			r.Route, r.Why, r.Route.Destination, in.Name, r.Route.Destination, in.Name)
	}
	return nil
}

func (w wiring) validate() error { return w.Validate(w.Bridge.Name, w.Uplink.Name) }

// Options are those of which it was made.
func (w wiring) Options() engine.Options {
	o := w.Base.Options()
	o.Names[bridgeRole], o.Names[uplinkRole] = w.Bridge.Name, w.Uplink.Name
	return o
}

// Links are the four that there are, from the pod network to the VM.
func (w wiring) Links() []engine.Link {
	return []engine.Link{
		{Role: uplinkRole, Name: w.Uplink.Name, Renamed: true},
		{Role: bridgeRole, Name: w.Bridge.Name},
		{Role: engine.TapRole, Name: w.NIC.Tap},
		{Role: placeholderRole, Name: w.Placeholder.Name},
	}
}

// Tables are the port guard, and what is judged before the bridge, as far as there is any.
func (w wiring) Tables() []nft.Table {
	var out []nft.Table
	if w.NIC.Guard {
		out = append(out, guardTable(w.NIC, w.Uplink.Name))
	}
	if t := ingressTable(w.NIC, w.Uplink.Name); len(t.Chains) > 0 {
		out = append(out, t)
	}
	return out
}

// Sysctls are the switches by which br_netfilter shows bridged frames to the pod's
// iptables (Documentation/networking/bridge.rst).
func (Datapath) Sysctls() []string {
	return []string{
		"net.bridge.bridge-nf-call-arptables",
		"net.bridge.bridge-nf-call-ip6tables",
		"net.bridge.bridge-nf-call-iptables",
	}
}

// Traces are the links that bear the default names, and the placeholder if there is
// one.
func (Datapath) Traces(s *engine.State, pod string) (out []string) {
	trace := func(name string, is func(nl.Link) bool) {
		if l := s.Link(name); l != nil && is(*l) {
			out = append(out, name)
		}
	}
	isBridge := func(l nl.Link) bool { return l.Kind == nl.KindBridge }
	trace(engine.LinkName(prefixes[bridgeRole], pod), isBridge)
	trace(engine.LinkName(prefixes[uplinkRole], pod), func(nl.Link) bool { return true })
	trace(engine.LinkName(prefixes[engine.TapRole], pod), func(l nl.Link) bool { return l.Tun != nil })
	trace(pod, isBridge)
	return out
}
