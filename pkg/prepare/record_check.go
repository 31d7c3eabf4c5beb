package prepare

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// checkInterface tells what is wrong with an interface that was read from a file.
func checkInterface(in discover.Interface) error {
	var errs []error
	if in.MAC.IsZero() {
		errs = append(errs, errors.New("the interface has no MAC"))
	}
	if in.Index < 1 {
		errs = append(errs, fmt.Errorf("interface index %d is not valid", in.Index))
	}
	if in.MTU < 1 {
		errs = append(errs, fmt.Errorf("interface MTU %d is not valid", in.MTU))
	}
	for _, a := range in.Addresses {
		if !a.Prefix.IsValid() || len(a.Message) < unix.SizeofIfAddrmsg {
			errs = append(errs, fmt.Errorf("address %s is not valid", a.Prefix))
		}
	}
	for _, r := range in.Routes {
		if !r.Destination.IsValid() || len(r.Message) < unix.SizeofRtMsg {
			errs = append(errs, fmt.Errorf("route to %s is not valid", r.Destination))
		}
	}
	for _, n := range slices.Concat(in.Neighbors, in.Proxies) {
		if !n.Address.IsValid() || len(n.Message) < unix.SizeofNdMsg {
			errs = append(errs, fmt.Errorf("neighbor %s is not valid", n.Address))
		}
	}
	if g := in.Gateway6; g != nil {
		if !g.Address.Is6() {
			errs = append(errs, fmt.Errorf("IPv6 gateway %s is not valid", g.Address))
		}
		if g.MAC.IsZero() {
			errs = append(errs, errors.New("the IPv6 gateway has no MAC"))
		}
	}
	return errors.Join(errs...)
}
