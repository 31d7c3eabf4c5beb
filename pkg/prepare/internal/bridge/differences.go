package bridge

import (
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Differences tell how the four links differ from the plan.
func (w wiring) Differences(s *engine.State) []engine.Difference {
	d := differences{engine.Differences{Interface: w.Pod.Name}, w, s}
	bridge := d.bridge()
	uplink := d.uplink(bridge)
	tap := d.tap(bridge)
	// A bridge has its ports' least MTU, unless somebody has set it.
	if l := s.Link(w.Bridge.Name); l != nil && uplink && tap {
		d.MTU(*l, w.NIC.MTU)
	}
	if l := s.Link(w.Pod.Name); l == nil || l.Index == w.Pod.Index {
		d.Add(w.Pod.Name, engine.Missing, "the placeholder, which has the pod's address", engine.PrepareAgain)
	} else {
		d.Addresses(s, *l, w.Addresses, engine.PrepareAgain)
		d.Neighbors(s, *l, w.NIC.Answers)
	}
	return d.Found
}

type differences struct {
	engine.Differences
	w wiring
	s *engine.State
}

// bridge tells whether the bridge is there and up.
func (d *differences) bridge() bool {
	name := d.w.Bridge.Name
	l := d.s.Link(name)
	switch {
	case l == nil:
		d.Add(name, engine.Missing, "a bridge", engine.PrepareAgain)
		return false
	case l.Kind != nl.KindBridge:
		d.Add(name, engine.Kind(*l), "a bridge", "give that another name, and "+engine.PrepareAgain)
		return false
	}
	d.MAC(*l, d.w.Bridge.MAC)
	for _, t := range bridgeToggles {
		if is := l.Bridge.On(t.attr); is != t.want {
			d.Add(name, "a bridge with "+t.name+" "+onOrOff(is), onOrOff(t.want), engine.PrepareAgain)
		}
	}
	return d.Up(*l)
}

// uplink looks at the pod interface, which is a port of the bridge, and
// tells whether the bridge can have its MTU.
func (d *differences) uplink(bridge bool) bool {
	name, pod := d.w.Uplink.Name, d.w.Pod
	l := d.s.Link(name)
	switch own := d.s.ByIndex(pod.Index); {
	case l == nil && own != nil:
		d.Add(name, engine.Missing, fmt.Sprintf("the pod's interface, which is %s now", own.Name), engine.PrepareAgain)
		return false
	case l == nil:
		d.Add(name, engine.Missing, "the pod's interface", engine.NewPod)
		return false
	case l.Index != pod.Index:
		d.Add(name, fmt.Sprintf("another link (index %d)", l.Index), fmt.Sprintf("the pod's interface (index %d)", pod.Index), engine.NewPod)
		return false
	}
	d.MAC(*l, d.w.Uplink.MAC)
	isPort := d.port(*l, uplinkToggles)
	if d.Up(*l) && !l.Carrier {
		d.Add(name, "without carrier", "connected", engine.LookAtNode)
	} else if bridge && isPort {
		d.forwarding(*l)
	}
	return d.MTU(*l, pod.MTU) && isPort
}

// tap looks at the tap, and tells whether the bridge can have its MTU.
func (d *differences) tap(bridge bool) bool {
	l := d.Tap(d.s, d.w.Tap())
	if l == nil {
		return false
	}
	isPort := d.port(*l, tapToggles)
	if d.Up(*l) && bridge && isPort {
		d.forwarding(*l)
	}
	return d.MTU(*l, d.w.NIC.MTU) && isPort
}

// port tells whether a link is a port of the bridge, and looks at its toggles.
func (d *differences) port(l nl.Link, toggles []toggle) bool {
	is := d.s.Master(l)
	if is != d.w.Bridge.Name {
		now, want := "in no bridge", "a port of "+d.w.Bridge.Name
		if is != "" {
			now, want = "a port of "+is, "one of "+d.w.Bridge.Name
		}
		d.Add(l.Name, now, want, engine.PrepareAgain)
		return false
	}
	if want := d.w.groupForward(); l.GroupForward != want {
		d.Add(l.Name, fmt.Sprintf("a port with group_fwd_mask %d", l.GroupForward), fmt.Sprintf("one with %d", want), engine.PrepareAgain)
	}
	for _, t := range toggles {
		if is := l.Port.On(t.attr); is != t.want {
			d.Add(l.Name, "a port with "+t.name+" "+onOrOff(is), onOrOff(t.want), engine.PrepareAgain)
		}
	}
	return true
}

// portStates are bridge(8)'s words for BR_STATE_DISABLED, … (linux/if_bridge.h).
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

// forwarding says if the bridge does not forward by a port that is connected. The
// kernel tells the bridge of a carrier when it also sets IFF_RUNNING
// (linkwatch_do_dev, net/core/link_watch.c), some time after IFF_LOWER_UP.
func (d *differences) forwarding(l nl.Link) {
	if !l.Running() || l.PortState == stateForwarding {
		return
	}
	is := fmt.Sprintf("in state %d", l.PortState)
	if int(l.PortState) < len(portStates) {
		is = portStates[l.PortState]
	}
	d.Add(l.Name, is, portStates[stateForwarding], engine.PrepareAgain)
}

// Forwards names a port that does not forward, or says why there is none.
func (w wiring) Forwards(s *engine.State) error {
	for _, name := range []string{w.NIC.Tap, w.Uplink.Name} {
		l := s.Link(name)
		switch {
		case l == nil:
			return fmt.Errorf("%s, which does not exist", name)
		case s.Master(*l) != w.Bridge.Name:
			return fmt.Errorf("%s, which is not a port of %s", name, w.Bridge.Name)
		case l.PortState != stateForwarding:
			return fmt.Errorf("%s to forward", name)
		}
	}
	return nil
}
