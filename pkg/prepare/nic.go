package prepare

import "github.com/virt-launcher-net/virt-launcher-net/pkg/guest"

// NIC returns what the VM gets of the pod interface.
func (p Plan) NIC() guest.NIC {
	return guest.Same(p.Interface, guest.Options{
		Tap: p.Tap.Name, TapMAC: p.Tap.MAC, MAC: p.MAC, MTU: p.MTU, Queues: p.Tap.Queues, NoGuard: !p.Guard, NoIPv6: p.IPv6 == nil,
	})
}
