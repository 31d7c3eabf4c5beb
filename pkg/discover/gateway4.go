package discover

import "net/netip"

// GatewayIPv4 returns the gateway of the widest IPv4 route that can be told by
// DHCP, the best one of several; ok is false if there is none.
func (i Interface) GatewayIPv4() (gateway netip.Addr, ok bool) {
	bits := 0
	for _, r := range i.PodRoutes() {
		told := r.Destination.Addr().Is4() && r.Gateway.Is4() && !r.From.IsValid() && r.TOS == 0 && !r.Encap
		if told && (!ok || r.Destination.Bits() < bits) {
			gateway, bits, ok = r.Gateway, r.Destination.Bits(), true
		}
	}
	return gateway, ok
}
