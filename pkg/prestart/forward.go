package prestart

import (
	"context"
	"errors"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
)

// checkForwards tells why no port can be forwarded to the VM of these NICs.
func (h Hook) checkForwards(nics []guest.NIC) error {
	if _, ok := aliasOf(nics); len(h.Forwards) > 0 && !ok {
		return errors.New("forward ports: the VM has no address within the pod, to which a port could be forwarded: use the datapath redirect")
	}
	return nil
}

// aliasOf is where the pod reaches the VM: by the first NIC that has an alias, by IPv4
// if it has one of that.
func aliasOf(nics []guest.NIC) (netip.Addr, bool) {
	for _, n := range nics {
		for _, a := range n.Aliases { // IPv4's first
			return a.VM, true
		}
	}
	return netip.Addr{}, false
}

// forward listens on the ports that are forwarded, in the current network namespace,
// and passes on what comes, until the session ends. What the VM is connected to is
// opened in that namespace, too.
func (s *Session) forward(ctx context.Context, nics []guest.NIC) error {
	if err := s.hook.checkForwards(nics); len(s.hook.Forwards) == 0 || err != nil {
		return err
	}
	vm, _ := aliasOf(nics)
	f, err := forward.Listen(ctx, s.hook.Log, vm, s.hook.Forwards, s.netns.do)
	if err != nil {
		return err
	}
	s.running.Go(func() {
		if err := f.Serve(s.done); err != nil {
			s.cancel(err)
		}
	})
	return nil
}
