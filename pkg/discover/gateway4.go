package discover

import (
	"cmp"
	"net/netip"

	"golang.org/x/sys/unix"
)

// GatewayIPv4 returns the gateway of the widest IPv4 route that all packets take,
// the best one of several; ok is false if there is none.
func (i Interface) GatewayIPv4() (gateway netip.Addr, ok bool) {
	var best Route
	for _, r := range i.Routes {
		if r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST || !r.Gateway.Is4() || !r.Destination.Addr().Is4() ||
			r.From.IsValid() || r.TOS != 0 || r.Encap {
			continue
		}
		if !ok || cmp.Or(cmp.Compare(r.Destination.Bits(), best.Destination.Bits()), cmp.Compare(r.Metric, best.Metric)) < 0 {
			best, ok = r, true
		}
	}
	return best.Gateway, ok
}
