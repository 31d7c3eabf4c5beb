package prestart

import (
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// each returns what f makes of each of the items.
func each[T, U any](items []T, f func(T) U) []U {
	out := make([]U, len(items))
	for i, item := range items {
		out[i] = f(item)
	}
	return out
}

func nicsOf(plans []prepare.Plan) []guest.NIC { return each(plans, prepare.Plan.NIC) }

func recordedOf(plans []prepare.Plan) []discover.Interface {
	return each(plans, func(p prepare.Plan) discover.Interface { return p.Interface })
}

func guestsOf(nics []*nic) []guest.NIC { return each(nics, func(n *nic) guest.NIC { return n.NIC }) }

func namesOf(nics []guest.NIC) []string {
	return each(nics, func(n guest.NIC) string { return n.Interface })
}

func interfacesOf(interfaces []discover.Interface) []string {
	return each(interfaces, func(i discover.Interface) string { return i.Name })
}
