// Package redirect is the datapath that leaves the pod interface as it is: a table at
// it and at the VM's tap hands each frame to the pod or to the VM, which have the same
// MAC and addresses. Ports decide, and who has opened a connection.
package redirect

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// prefix begins the tap's name, before the pod interface's.
const prefix = "tap-"

// wiring is the plan for one pod interface.
type wiring struct {
	engine.Base
	PodPorts guest.Ports `json:"podPorts,omitzero"`
	VMPorts  guest.Ports `json:"vmPorts,omitzero"`
}

// Datapath is the one of this package.
type Datapath struct{}

// Wire plans how in is wired, or says why it can't be shared with a VM.
func (Datapath) Wire(in discover.Interface, o engine.Options) (engine.Wiring, error) {
	if err := usable(in); err != nil {
		return nil, err
	}
	if !o.MAC.IsZero() && o.MAC != in.MAC {
		return nil, fmt.Errorf("the VM can't have the MAC %s, since it shares that of %s, %s: leave its MAC out, or use the default datapath", o.MAC, in.Name, in.MAC)
	}
	tap := o.Names[engine.TapRole]
	if tap == "" {
		tap = engine.LinkName(prefix, in.Name)
	}
	// Where the interface is prepared and was read again, the aliases are there.
	in.Elsewhere = slices.DeleteFunc(slices.Clone(in.Elsewhere), func(n discover.LinkNetwork) bool { return n.Link == tap })
	aliases, err := aliasesFor(in, o)
	if err != nil {
		return nil, err
	}
	w := wiring{
		Base: engine.Base{
			NIC: guest.Same(in, guest.Options{
				Tap: tap, TapMAC: engine.DerivedMAC(in, engine.TapRole), MTU: o.MTU, Queues: o.Queues,
				NoGuard: o.NoGuard, NoIPv6: o.NoIPv6, Aliases: aliases,
			}),
			TapOwner: o.TapOwner, SELinuxContext: o.SELinuxContext, Pod: in,
		},
		PodPorts: o.PodPorts, VMPorts: o.VMPorts,
	}
	return w, w.validate()
}

// Decode reads a wiring from a record.
func (Datapath) Decode(in discover.Interface, _ int, text json.RawMessage) (engine.Wiring, error) {
	var w wiring
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, err
	}
	w.Pod = in
	switch {
	case w.NIC.Interface != in.Name:
		return nil, fmt.Errorf("it is not for %s", in.Name)
	case w.NIC.MAC != in.MAC:
		return nil, fmt.Errorf("the VM's MAC %s is not that of %s", w.NIC.MAC, in.Name)
	case !w.PodPorts.IsZero() && !w.VMPorts.IsZero():
		return nil, errors.New("it has ports of the pod and of the VM")
	}
	return w, errors.Join(usable(in), w.validate())
}

// usable says why an interface can't be shared with a VM.
func usable(in discover.Interface) error {
	if err := engine.CheckEthernet(in); err != nil {
		return err
	}
	switch {
	case in.PointToPoint:
		return errors.New("it is a point-to-point link, on which no Ethernet frames are for a MAC; use a veth-based network")
	case !in.ARP && in.Kind == "ipvlan":
		return errors.New("it is an ipvlan in mode L3 or L3S, which does not resolve neighbors (ARP is off), so the VM would find no gateway: " +
			"set the CNI to ipvlan's mode l2, or use a veth-based network")
	case !in.ARP:
		return errors.New("it does not resolve neighbors (ARP is off), so the VM would find no gateway; " +
			"set the CNI to veth, or netkit to L2 mode")
	case in.Master != "":
		return fmt.Errorf("it belongs to %s, a bridge, bond or VRF, which gets its frames: name that if it has the pod's address, "+
			"or take it out (ip link set %s nomaster)", in.Master, in.Name)
	}
	return nil
}

// validate tells why the pod interface and the options don't go together.
func (w wiring) validate() error {
	for _, a := range w.NIC.Aliases {
		if a.Pod != paired(a.VM) {
			return fmt.Errorf("the pod's alias %s is not the one that goes with the VM's, %s", a.Pod, a.VM)
		}
	}
	return w.Validate()
}

// Options are those of which it was made.
func (w wiring) Options() engine.Options {
	o := w.Base.Options()
	o.PodPorts, o.VMPorts = w.PodPorts, w.VMPorts
	for _, a := range w.NIC.Aliases {
		if a.VM.Is4() {
			o.VMAlias = a.VM
		} else {
			o.VMAlias6 = a.VM
		}
	}
	return o
}

// Links is the tap.
func (w wiring) Links() []engine.Link {
	return []engine.Link{{Role: engine.TapRole, Name: w.NIC.Tap}}
}

// Tables are the one that hands on the frames, and those of the pod's own stack.
func (w wiring) Tables() []nft.Table { return append([]nft.Table{w.table()}, w.stackTables()...) }

// Sysctls are none.
func (Datapath) Sysctls() []string { return nil }

// Traces are a tap, of whatever name, that has the MAC that is made of the pod
// interface's, and then that interface too: nobody else makes such a one.
func (Datapath) Traces(s *engine.State, pod string) []string {
	in := s.Link(pod)
	if in == nil || in.MAC.IsZero() {
		return nil
	}
	made := engine.DerivedMAC(discover.Interface{MAC: in.MAC}, engine.TapRole)
	i := slices.IndexFunc(s.Links, func(l nl.Link) bool { return l.Tun != nil && l.MAC == made })
	if i < 0 {
		return nil
	}
	return []string{s.Links[i].Name, pod}
}
