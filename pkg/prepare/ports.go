package prepare

import (
	"path/filepath"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// Ports are those that were listed for the pod, or for the VM, where both share the
// interface's addresses; both are none if the VM gets all.
func (p Plan) Ports() (pods, vms guest.Ports) {
	o := p.wired().Options()
	return o.PodPorts.Clone(), o.VMPorts.Clone()
}

// WithOtherPorts is the plan by which the interface is prepared now, as it is recorded
// in dir, if that differs from p in nothing but ports, which [Apply] changes while a VM
// runs; ok is whether it does.
func (p Plan) WithOtherPorts(dir string) (now Plan, ok bool) {
	r, err := readRecord(filepath.Join(dir, p.Interface.Name+".json"))
	if err != nil || r.Plan.Interface.Index != p.Interface.Index || r.Plan.sameOptions(p) != nil {
		return Plan{}, false
	}
	return r.Plan, !samePorts(r.Plan.wired().Options(), p.wired().Options())
}

// samePorts reports whether ports are shared alike by both.
func samePorts(a, b Options) bool { return a.PodPorts.Equal(b.PodPorts) && a.VMPorts.Equal(b.VMPorts) }
