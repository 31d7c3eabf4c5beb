package prepare

import (
	"cmp"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// A record says which links were made for a VM, and under which names. Somebody
// may have deleted them since, and something else may have got the name or the
// index. So a link is taken for ours only if it also is what was planned.

// uplink returns the pod interface, whatever it is called now, or nil.
func (p Plan) uplink(s state) *nl.Link {
	l := s.linkByIndex(p.Interface.Index)
	if l == nil || cmp.Or(l.Kind, "physical") != p.Interface.Kind {
		return nil
	}
	if l.Name == p.Bridge.Uplink || l.Name == p.Interface.Name ||
		l.MAC == p.Bridge.UplinkMAC || l.MAC == p.Interface.MAC {
		return l
	}
	return nil
}

// uplinkGone says why there is no uplink, and what helps.
func (p Plan) uplinkGone(s state) error {
	why := "is gone from this network namespace"
	if l := s.linkByIndex(p.Interface.Index); l != nil {
		why = "is gone, and its index is that of " + l.Name + " now, " + describe(*l)
	}
	return fmt.Errorf("the pod interface %s (index %d) %s: its VM has no network any more; run restore, which removes what is left of it, "+
		"and make the pod anew or have the CNI add the interface again", p.Interface.Name, p.Interface.Index, why)
}

// placeholder returns the placeholder, or nil.
func (p Plan) placeholder(s state) *nl.Link {
	if l := p.namesake(s); l != nil && isSilentBridge(*l, p.placeholderMAC()) {
		return l
	}
	return nil
}

// namesake returns another link than the pod interface that has its name, or nil.
func (p Plan) namesake(s state) *nl.Link {
	l := s.link(p.Interface.Name)
	if l == nil {
		return nil
	}
	if up := p.uplink(s); up != nil && up.Index == l.Index {
		return nil
	}
	return l
}

func (p Plan) placeholderMAC() mac.Addr { return derivedMAC(p.Interface, "placeholder") }

// bridge returns the bridge, or nil.
func (p Plan) bridge(s state) *nl.Link {
	if l := s.link(p.Bridge.Name); l != nil && isSilentBridge(*l, p.Bridge.MAC) {
		return l
	}
	return nil
}

// isSilentBridge reports whether a link is one that silentBridge made. Others do
// ARP, or had their MAC changed.
func isSilentBridge(l nl.Link, mac mac.Addr) bool {
	return l.Kind == "bridge" && (l.MAC == mac || !l.ARP())
}

// tap returns the tap, or nil.
func (p Plan) tap(s state) *nl.Link {
	l := s.link(p.Tap.Name)
	if l == nil || l.Tun == nil || !l.Tun.Tap {
		return nil
	}
	if b := p.bridge(s); l.MAC == p.Tap.MAC || b != nil && l.Master == b.Index {
		return l
	}
	return nil
}

// restorable tells why the pod interface can't get its name back: another link
// has it.
func (p Plan) restorable(s state) error {
	l := p.namesake(s)
	if l == nil || p.placeholder(s) != nil || p.uplink(s) == nil {
		return nil
	}
	return fmt.Errorf("the name %s is taken by %s that was not made for its VM: delete that (ip link delete %s) or give it another name, then restore again",
		l.Name, describe(*l), l.Name)
}

// strangers are links that have the names of ours, and are not.
func (p Plan) strangers(s state) (out []nl.Link) {
	if l := p.namesake(s); l != nil && p.placeholder(s) == nil {
		out = append(out, *l)
	}
	if l := s.link(p.Bridge.Name); l != nil && p.bridge(s) == nil {
		out = append(out, *l)
	}
	if l := s.link(p.Tap.Name); l != nil && p.tap(s) == nil {
		out = append(out, *l)
	}
	return out
}

// describe names a link for people.
func describe(l nl.Link) string {
	return fmt.Sprintf("%s (index %d, MAC %s)", kindOf(l), l.Index, l.MAC)
}
