package prepare

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/normalize"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// checkInterface tells what is wrong with an interface that was read from a file.
func checkInterface(in discover.Interface) error {
	var c normalize.Checks
	c.That(!in.MAC.IsZero(), "the interface has no MAC")
	c.That(in.Index >= 1, "interface index %d is not valid", in.Index)
	c.That(in.MTU >= 1, "interface MTU %d is not valid", in.MTU)
	for _, a := range in.Addresses {
		c.That(a.Prefix.IsValid() && len(a.Message) >= unix.SizeofIfAddrmsg, "address %s is not valid", a.Prefix)
	}
	for _, r := range in.Routes {
		c.That(r.Destination.IsValid() && len(r.Message) >= unix.SizeofRtMsg, "route to %s is not valid", r.Destination)
	}
	for _, n := range slices.Concat(in.Neighbors, in.Proxies) {
		c.That(n.Address.IsValid() && len(n.Message) >= unix.SizeofNdMsg, "neighbor %s is not valid", n.Address)
	}
	for _, n := range in.Elsewhere {
		c.That(n.Network.IsValid(), "a network of another link is not valid")
	}
	if g := in.Gateway6; g != nil {
		c.That(g.Address.Is6(), "IPv6 gateway %s is not valid", g.Address)
		c.That(!g.MAC.IsZero(), "the IPv6 gateway has no MAC")
	}
	return errors.Join(c...)
}
