package prestart

import (
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// tellOmitted adds to each interface of a pod what its VM is not told, as far as it
// can have a VM.
func (h Hook) tellOmitted(pod discover.Pod, recorded []prepare.Plan) error {
	var nics []guest.NIC
	for _, in := range pod.Interfaces {
		i := slices.IndexFunc(recorded, func(p prepare.Plan) bool { return p.Interface.Name == in.Name })
		if i >= 0 {
			nics = append(nics, recorded[i].NIC())
		} else if p, err := prepare.NewPlan(in, h.networkOf(in.Name)); err == nil {
			nics = append(nics, p.NIC())
		}
	}
	d, err := h.defaultRouteOf(nics, recorded)
	if err != nil {
		return err
	}
	for i, in := range pod.Interfaces {
		if n := slices.Index(namesOf(nics), in.Name); n >= 0 {
			pod.Interfaces[i].Omitted = h.leaseOf(in.Name).leases(nics[n], pod, d).omitted
		}
	}
	return nil
}

// withoutNICs leaves out of what is omitted the interfaces that are the VM's by now:
// one that was prepared alone has it from then.
func withoutNICs(omitted []discover.Omission, interfaces []string) []discover.Omission {
	return slices.DeleteFunc(slices.Clone(omitted), func(o discover.Omission) bool {
		return slices.ContainsFunc(interfaces, func(name string) bool { return strings.HasPrefix(o.What, "interface "+name+" (") })
	})
}
