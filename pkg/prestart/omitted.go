package prestart

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// tellOmitted adds to each interface of a pod what its VM is not told, as far as it
// can have a VM.
func (h Hook) tellOmitted(pod discover.Pod, recorded []prepare.Plan) error {
	var plans []prepare.Plan
	for _, in := range pod.Interfaces {
		i := slices.IndexFunc(recorded, func(p prepare.Plan) bool { return p.Interface.Name == in.Name })
		if i >= 0 {
			plans = append(plans, recorded[i])
		} else if p, err := prepare.NewPlan(in, h.networkOf(in.Name)); err == nil {
			plans = append(plans, p)
		}
	}
	nics := nicsOf(plans)
	d, err := h.defaultRouteOf(nics)
	if err != nil {
		return err
	}
	for _, n := range nics {
		for i, in := range pod.Interfaces {
			if in.Name == n.Interface {
				pod.Interfaces[i].Omitted = h.leaseOf(in.Name).leases(n, pod, d).omitted
			}
		}
	}
	return nil
}
