package prepare

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// check tells what is wrong with a plan that was read from a file. A plan that
// NewPlan made has none of this.
func (p Plan) check() error {
	errs := []error{checkInterface(p.Interface), p.validate()}
	for _, name := range []string{p.Interface.Name, p.Tap.Name, p.Bridge.Name, p.Bridge.Uplink} {
		errs = append(errs, CheckName(name))
	}
	for what, mac := range map[string]mac.Addr{
		"the VM's": p.MAC, "the tap's": p.Tap.MAC, "the bridge's": p.Bridge.MAC, "the uplink's": p.Bridge.UplinkMAC,
	} {
		errs = append(errs, checkMAC(what, mac))
	}
	if p.MTU < minMTU {
		errs = append(errs, fmt.Errorf("MTU %d is less than %d", p.MTU, minMTU))
	}
	if p.Tap.Queues < 1 || p.Tap.Queues > maxQueues {
		errs = append(errs, fmt.Errorf("%d queues: a tap has 1 to %d", p.Tap.Queues, maxQueues))
	}
	if p.IPv6 != nil {
		errs = append(errs, p.IPv6.check())
	}
	return errors.Join(errs...)
}

func (v *IPv6) check() error {
	if !v.Address.IsValid() || !v.Address.Addr().Is6() {
		return fmt.Errorf("IPv6 address %s is none", v.Address)
	}
	if v.Router == nil {
		return nil
	}
	if !v.Router.LinkLocal.IsLinkLocalUnicast() || !v.Router.LinkLocal.Is6() {
		return fmt.Errorf("IPv6 router %s is no link-local address", v.Router.LinkLocal)
	}
	return checkMAC("the IPv6 router's", v.Router.MAC)
}

func checkInterface(in discover.Interface) error {
	errs := []error{checkMAC("the interface's", in.MAC)}
	if in.Index < 1 {
		errs = append(errs, fmt.Errorf("interface index %d is none", in.Index))
	}
	if in.MTU < minMTU {
		errs = append(errs, fmt.Errorf("interface MTU %d is less than %d", in.MTU, minMTU))
	}
	for _, a := range in.Addresses {
		if !a.Prefix.IsValid() || len(a.Message) < unix.SizeofIfAddrmsg {
			errs = append(errs, fmt.Errorf("address %s is none", a.Prefix))
		}
	}
	for _, routes := range [][]discover.Route{in.Routes, in.Dependents} {
		for _, r := range routes {
			if !r.Destination.IsValid() || len(r.Message) < unix.SizeofRtMsg {
				errs = append(errs, fmt.Errorf("route to %s is none", r.Destination))
			}
		}
	}
	for _, n := range in.Neighbors {
		if !n.Address.IsValid() || len(n.Message) < unix.SizeofNdMsg {
			errs = append(errs, fmt.Errorf("neighbour %s is none", n.Address))
		}
	}
	for _, n := range in.Proxies {
		if !n.Address.IsValid() || len(n.Message) < unix.SizeofNdMsg {
			errs = append(errs, fmt.Errorf("proxied neighbour %s is none", n.Address))
		}
	}
	if g := in.Gateway6; g != nil {
		if !g.Address.Is6() {
			errs = append(errs, fmt.Errorf("IPv6 gateway %s is none", g.Address))
		}
		errs = append(errs, checkMAC("the IPv6 gateway's", g.MAC))
	}
	return errors.Join(errs...)
}

func checkMAC(whose string, mac mac.Addr) error {
	if len(mac) != 6 {
		return fmt.Errorf("%s MAC %q is no Ethernet address", whose, mac)
	}
	return nil
}
