package prepare

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

func init() { datapaths["toy"] = toy{} }

// toy is the datapath of docs/datapath.md: what arrives at the pod interface goes to
// the VM, and what the VM sends leaves by it. The pod interface stays as it is.
type toy struct{}

// toyWiring is the plan for one pod interface.
type toyWiring struct{ engine.Base }

// Wire plans how in is wired.
func (toy) Wire(in discover.Interface, o engine.Options) (engine.Wiring, error) {
	if !in.Ethernet || in.MAC.IsZero() {
		return nil, fmt.Errorf("it is a %s without Ethernet frames: use a veth-based network", in.Kind)
	}
	if !o.NoGuard {
		return nil, errors.New("the datapath toy has no port guard: turn it off")
	}
	return toyWiring{engine.Base{
		NIC: guest.Same(in, guest.Options{
			Tap:    cmp.Or(o.Names[engine.TapRole], engine.LinkName("tap-", in.Name)),
			TapMAC: engine.DerivedMAC(in, engine.TapRole),
			MAC:    o.MAC, MTU: o.MTU, Queues: o.Queues, NoGuard: true, NoIPv6: o.NoIPv6,
		}),
		TapOwner: o.TapOwner, SELinuxContext: o.SELinuxContext, Pod: in,
	}}, nil
}

// Decode reads a wiring from a record.
func (toy) Decode(in discover.Interface, _ int, text json.RawMessage) (engine.Wiring, error) {
	var w toyWiring
	if err := json.Unmarshal(text, &w); err != nil {
		return nil, err
	}
	if w.NIC.Interface != in.Name {
		return nil, fmt.Errorf("it is not for %s", in.Name)
	}
	w.Pod = in
	return w, w.Validate()
}

// Traces finds the tap by its default name, and no more: with the record nothing of the
// CNI's is lost.
func (toy) Traces(s *engine.State, pod string) []string {
	if l := s.Link(engine.LinkName("tap-", pod)); l != nil && l.Tun != nil {
		return []string{l.Name}
	}
	return nil
}

// Sysctls are none.
func (toy) Sysctls() []string { return nil }

// Links is the tap.
func (w toyWiring) Links() []engine.Link {
	return []engine.Link{{Role: engine.TapRole, Name: w.NIC.Tap}}
}

// Tables is the one that moves the frames.
func (w toyWiring) Tables() []nft.Table {
	move := func(chain, from, to string) nft.Chain {
		return nft.Chain{Name: chain, Hook: "ingress", Device: from, Rules: []nft.Rule{{nft.SendTo(to)}}}
	}
	return []nft.Table{{
		Family: nft.Netdev, Name: nft.Prefix + w.NIC.Interface, Purpose: "what connects the tap",
		Chains: []nft.Chain{move("to_guest", w.NIC.Interface, w.NIC.Tap), move("from_guest", w.NIC.Tap, w.NIC.Interface)},
	}}
}

// Apply makes the tap, and then the table, of which a chain is on the tap.
func (w toyWiring) Apply(s *engine.State) (st engine.Steps, err error) {
	ops, err := w.Tap().Ops(s, false)
	if err != nil {
		return st, err
	}
	l := s.Link(w.NIC.Tap)
	ops = append(ops, engine.Up.Set(w.NIC.Tap, l != nil && l.Up(), true)...)
	st[engine.Make] = append(ops, engine.TableOps(s, w.NIC.Tap, w.Tables()...)...)
	return st, nil
}

// Restore deletes the table and the tap.
func (w toyWiring) Restore(s *engine.State) (st engine.Steps, notes []string, err error) {
	st[engine.End] = engine.DropTableOps(s, w.Tables()...)
	if l := s.Link(w.NIC.Tap); l != nil && l.Tun != nil && l.MAC == w.NIC.TapMAC {
		st[engine.End] = append(st[engine.End], w.Tap().Delete(s, *l))
	} else if l != nil {
		notes = append(notes, l.Name+" was not made for the VM: it stays")
	}
	return st, notes, nil
}

// Differences looks at the tap; the engine compares the table.
func (w toyWiring) Differences(s *engine.State) []engine.Difference {
	d := engine.Differences{Interface: w.NIC.Interface}
	if l := d.Tap(s, w.Tap()); l != nil {
		d.Up(*l)
		d.MTU(*l, w.NIC.MTU)
	}
	return d.Found
}

// Forwards waits until both ends are up.
func (w toyWiring) Forwards(s *engine.State) error {
	for _, name := range []string{w.NIC.Tap, w.NIC.Interface} {
		if l := s.Link(name); l == nil || !l.Up() {
			return fmt.Errorf("%s to be up", name)
		}
	}
	return nil
}
