package redirect

import (
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Differences tell how the pod interface and the tap differ from the plan.
func (w wiring) Differences(s *engine.State) []engine.Difference {
	d := engine.Differences{Interface: w.Pod.Name}
	switch in := s.ByIndex(w.Pod.Index); {
	case in == nil:
		d.Add(w.Pod.Name, engine.Missing, "the pod's interface", engine.NewPod)
	case in.Name != w.Pod.Name:
		d.Add(w.Pod.Name, "called "+in.Name, "the pod's interface", fmt.Sprintf("ip link set %s name %s", in.Name, w.Pod.Name))
	default:
		// The pod's interface is not this program's to change, so a prepare repairs nothing.
		if in.MAC != w.Pod.MAC {
			d.Add(in.Name, "of MAC "+in.MAC.String(), "of "+w.Pod.MAC.String(), fmt.Sprintf("ip link set %s address %s", in.Name, w.Pod.MAC))
		}
		if in.MTU < w.NIC.MTU { // a larger one is the pod's affair
			d.Add(in.Name, fmt.Sprintf("of MTU %d", in.MTU), fmt.Sprintf("of %d", w.NIC.MTU),
				fmt.Sprintf("ip link set %s mtu %d; if the network carries no more now, recreate the pod: the VM sends larger packets, which are lost", in.Name, w.NIC.MTU))
		}
		switch {
		case !in.Up():
			d.Add(in.Name, "down", "up", fmt.Sprintf("ip link set %s up, and give the pod its routes again, which virt-launcher-net discover prints", in.Name))
		case !in.Carrier:
			d.Add(in.Name, "without carrier", "connected", engine.LookAtNode)
		}
		if in.Up() { // else IPv6 has none
			d.Addresses(s, *in, w.NIC.Addresses(), "give "+in.Name+" its address again, with its routes, which virt-launcher-net discover prints; if the CNI has given the pod another address, recreate the pod: the VM has the old one")
		}
		d.Neighbors(s, *in, w.NIC.Answers)
	}
	if tap := d.Tap(s, w.Tap()); tap != nil {
		d.Up(*tap)
		d.MTU(*tap, w.NIC.MTU)
		if m := s.Master(*tap); m != "" { // as by a script of QEMU's
			d.Add(tap.Name, "a port of "+m, "of nothing", engine.PrepareAgain)
		}
		if tap.ARP() {
			d.Add(tap.Name, "with ARP on", "off", engine.PrepareAgain)
		}
		for _, a := range w.NIC.Aliases {
			if now := s.Interfaces[tap.Index]; s.Interfaces != nil && !w.hasAlias(now, a) {
				d.Add(tap.Name, fmt.Sprintf("without the aliases %s and %s", a.Pod, a.VM), "with them", engine.PrepareAgain)
				d.Found[len(d.Found)-1].Alias = true
			}
		}
	}
	return d.Found
}

// Forwards waits until both ends are up and connected.
func (w wiring) Forwards(s *engine.State) error {
	for _, name := range []string{w.NIC.Tap, w.Pod.Name} {
		switch l := s.Link(name); {
		case l == nil:
			return fmt.Errorf("%s, which does not exist", name)
		case !l.Running():
			return fmt.Errorf("%s to be connected", name)
		}
	}
	return nil
}
