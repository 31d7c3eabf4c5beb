package bridge

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// plan1 is a wiring as records of version 1 had it.
type plan1 struct {
	MAC mac.Addr `json:"mac"`
	MTU int      `json:"mtu"`
	Tap struct {
		Name   string        `json:"name"`
		Queues int           `json:"queues"`
		Owner  *engine.Owner `json:"owner"`
	} `json:"tap"`
	Interface struct {
		Dependents []json.RawMessage `json:"dependents"`
		Routes     []struct {
			Links []int `json:"links"`
		} `json:"routes"`
	} `json:"interface"`
	Guard  bool `json:"guard"`
	IPv6   any  `json:"ipv6"`
	Bridge struct {
		Name   string `json:"name"`
		Uplink string `json:"uplink"`
	} `json:"bridge"`
}

// decode1 plans the interface anew with the options that it was prepared with: they
// make the same. Only the placeholder had a MAC of its own then. It had IPv4 alone: the
// addresses that it lacks are given to it, as the plan of today has them, or it would
// never be as planned.
func (d Datapath) decode1(in discover.Interface, text json.RawMessage) (engine.Wiring, error) {
	var p plan1
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, err
	}
	shares := len(p.Interface.Dependents) > 0
	for _, r := range p.Interface.Routes {
		shares = shares || slices.ContainsFunc(r.Links, func(index int) bool { return index != in.Index })
	}
	if shares {
		return nil, errors.New("it has routes of several interfaces, which this version can't put back: restore the pod with the version that prepared it, or recreate the pod")
	}
	made, err := d.Wire(in, engine.Options{
		MAC: p.MAC, MTU: p.MTU, Queues: p.Tap.Queues, TapOwner: p.Tap.Owner, NoGuard: !p.Guard, NoIPv6: p.IPv6 == nil,
		Names: map[string]string{engine.TapRole: p.Tap.Name, bridgeRole: p.Bridge.Name, uplinkRole: p.Bridge.Uplink},
	})
	if err != nil {
		return nil, err
	}
	w := made.(wiring)
	w.Placeholder.MAC = engine.DerivedMAC(in, placeholderRole)
	return w, nil
}
