package prestart

import (
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// peculiarity says what of a route neither DHCP nor a router advertisement can
// express. Told without it the guest's packets would go where the pod's don't.
// Empty: nothing.
func peculiarity(r discover.Route) string {
	switch {
	case r.Gateway.IsValid() && r.Gateway.Is4() != r.Destination.Addr().Is4():
		return fmt.Sprintf("its gateway %s is of the other family", r.Gateway)
	case r.TOS != 0:
		return fmt.Sprintf("it is for packets with the type of service %#x only", r.TOS)
	case r.From.IsValid():
		return fmt.Sprintf("it is for packets from %s only", r.From)
	case r.Destination.Addr().Is6() && r.Destination.Bits() == 0 && !r.Gateway.IsValid():
		return "it is a default route without a gateway, which a router advertisement can't say"
	case r.Encap:
		return "it encapsulates packets"
	}
	return ""
}
