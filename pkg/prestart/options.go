package prestart

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// InterfaceOptions are what one pod interface has apart from the others. The zero
// value is that of the Hook.
type InterfaceOptions struct {
	// Network is in place of [Hook.Network], as a whole; nil: that.
	Network *prepare.Options
	// Lease is in place of [Hook.Lease], as a whole; nil: that. The default route
	// is the pod's, and said there.
	Lease *LeaseSettings
	// Model is in place of [Hook.Model]; empty: that.
	Model string
}

// networkOf, leaseOf and modelOf are what the interface of that name has.
func (h Hook) networkOf(name string) prepare.Options {
	return *cmp.Or(h.PerInterface[name].Network, &h.Network)
}

func (h Hook) leaseOf(name string) LeaseSettings {
	return *cmp.Or(h.PerInterface[name].Lease, &h.Lease)
}

func (h Hook) modelOf(name string) string { return cmp.Or(h.PerInterface[name].Model, h.Model) }

// checkPerInterface tells what is wrong with the options of single interfaces
// whatever the pod is.
func (h Hook) checkPerInterface() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(h.PerInterface)) {
		o := h.PerInterface[name]
		err := errors.Join(guest.CheckName(name), domain.CheckModel(o.Model))
		if o.Network != nil {
			err = errors.Join(err, o.Network.Validate(), prepare.CheckDatapath(o.Network.Datapath))
		}
		if o.Lease != nil {
			err = errors.Join(err, o.Lease.Validate())
			if route := o.Lease.DefaultRoute; route != "" && route != h.Lease.DefaultRoute {
				err = errors.Join(err, errors.New("the default route is set once for all interfaces, not for each"))
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("options of interface %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// optionsFor are all options of the interface of that name that is plugged in: its own,
// and where it has none those of the Hook, but for a MAC and names of links that are
// another's.
func (h Hook) optionsFor(name string, own InterfaceOptions) InterfaceOptions {
	h.Network.MAC, h.Network.Names = mac.Addr{}, nil
	network, lease := h.networkOf(name), h.leaseOf(name)
	lease.DefaultRoute = ""
	return InterfaceOptions{
		Network: cmp.Or(own.Network, &network), Lease: cmp.Or(own.Lease, &lease), Model: cmp.Or(own.Model, h.modelOf(name)),
	}
}

// checkNamed refuses options of an interface that is none of these, nor can be one
// later.
func (h Hook) checkNamed(interfaces []string) error {
	if h.Hotplug != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(h.PerInterface)) {
		if !slices.Contains(interfaces, name) {
			return fmt.Errorf("options of interface %s: it is not one of the VM's interfaces", name)
		}
	}
	return nil
}

// checkShared refuses what only one interface can have where several would.
func (h Hook) checkShared(interfaces []string) error {
	owner := map[string]string{}
	for _, name := range interfaces {
		o := h.networkOf(name)
		for _, given := range append(slices.Sorted(maps.Values(o.Names)), o.MAC.String()) {
			if other, ok := owner[given]; ok && other != name && given != "" {
				return fmt.Errorf("interfaces %s and %s both have %s: a MAC or a name is for one interface", other, name, given)
			}
			owner[given] = name
		}
	}
	return nil
}

// distinct refuses links of the same name for two interfaces, and the name of one
// for a link of another.
func distinct(plans []prepare.Plan) error {
	owner := map[string]string{}
	for _, name := range namesOf(nicsOf(plans)) {
		owner[name] = name
	}
	for _, p := range plans {
		name := p.Interface.Name
		for _, link := range p.Links() {
			if other, ok := owner[link.Name]; ok && (other != name || link.Name != name) {
				return fmt.Errorf("interfaces %s and %s would both have a link %s: choose another name", other, name, link.Name)
			}
			owner[link.Name] = name
		}
	}
	return nil
}
