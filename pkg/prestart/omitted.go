package prestart

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// tellOmitted adds to each interface of a pod what its VM is not told, as far as it
// can have a VM.
func (h Hook) tellOmitted(pod discover.Pod, recorded []prepare.Plan) error {
	var plans []prepare.Plan
	for _, in := range pod.Interfaces {
		i := slices.IndexFunc(recorded, func(p prepare.Plan) bool { return p.Interface.Name == in.Name })
		if i >= 0 {
			plans = append(plans, recorded[i])
		} else if p, err := prepare.NewPlan(in, h.networkOf(in.Name)); err == nil {
			plans = append(plans, p)
		}
	}
	d, err := h.defaultRouteOf(plans)
	if err != nil {
		return err
	}
	for _, p := range plans {
		for i, in := range pod.Interfaces {
			if in.Name == p.Interface.Name {
				pod.Interfaces[i].Omitted = slices.Concat(omitted(p, d), h.unsent(p, pod, d))
			}
		}
	}
	return nil
}

// omitted tells what the pod has by an interface that its VM does not get, and
// why: what can't be given to any VM, and what is left out of what this one is told.
func omitted(p prepare.Plan, d defaultRoutes) []discover.Omission {
	out := slices.Clone(p.Interface.Omitted)
	if a, ok := p.Interface.IPv6(); ok && p.IPv6 == nil {
		out = append(out, discover.Omission{What: "address " + a.String(), Why: noIPv6})
	}
	var told []netip.Prefix
	for _, r := range p.Interface.PodRoutes() {
		why := routeOmitted(p, r, d)
		switch {
		case why != "":
		case slices.Contains(told, r.Destination):
			why = "there is a better one to the same destination"
		default:
			told = append(told, r.Destination)
		}
		if why != "" {
			out = append(out, discover.Omission{What: "route " + r.String(), Why: why})
		} else if why := peculiarSetting(p, r); why != "" {
			out = append(out, discover.Omission{What: "a setting of route " + r.String(), Why: why})
		}
	}
	for _, n := range p.Interface.Neighbors {
		if why := neighborOmitted(p, n); why != "" {
			out = append(out, discover.Omission{What: fmt.Sprintf("permanent neighbor %s at %s", n.Address, n.MAC), Why: why})
		}
	}
	return out
}

const (
	noIPv6 = "the VM gets no IPv6"
	noIPv4 = "the VM is told of no IPv4 address here, so by DHCP of nothing else"
)

// routeOmitted says why a VM does not get one of the routes in
// [discover.Interface.PodRoutes]; empty: it does.
func routeOmitted(p prepare.Plan, r discover.Route, d defaultRoutes) string {
	is4, isDefault := r.Destination.Addr().Is4(), r.Destination.Bits() == 0
	family, other := "IPv4", d.ipv4
	if !is4 {
		family, other = "IPv6", d.ipv6
	}
	_, has4 := p.Interface.IPv4()
	to := r.Destination.Addr()
	switch {
	case !is4 && (to.IsLinkLocalUnicast() || to.IsMulticast()):
		return "" // every IPv6 link has them
	case is4 && !has4:
		return noIPv4
	case !is4 && p.IPv6 == nil:
		return noIPv6
	case peculiarity(r) != "":
		return peculiarity(r)
	case isDefault && other == "":
		return "no NIC of the VM is to have the default route of " + family
	case isDefault && other != p.Interface.Name:
		return fmt.Sprintf("the VM has the default route of %s by %s", family, other)
	case !is4 && r.Gateway.IsValid() && p.Interface.Gateway6 == nil:
		return fmt.Sprintf("its gateway %s is not known to answer", r.Gateway)
	case !is4 && r.Gateway.IsValid() && !byRouter(p, r):
		return fmt.Sprintf("an IPv6 VM is told of one router, and that is %s", p.Interface.Gateway6.Address)
	}
	return ""
}

// peculiarSetting says which setting of a route that the VM gets it does not get;
// empty: none.
func peculiarSetting(p prepare.Plan, r discover.Route) string {
	switch {
	case r.MTU != 0 && r.MTU < p.MTU && r.Destination.Bits() > 0:
		return fmt.Sprintf("its MTU is %d, and a VM is told of one MTU for all", r.MTU)
	case r.MTU != 0 && r.MTU < minMTU:
		return fmt.Sprintf("its MTU is %d, which is less than a VM can be told", r.MTU)
	case r.Source.IsValid() && r.Source != firstOf(p, r.Source.Is4()):
		return fmt.Sprintf("its packets have the source %s, and a VM is told of one address", r.Source)
	}
	return ""
}

// firstOf is the address that the VM gets.
func firstOf(p prepare.Plan, ipv4 bool) netip.Addr {
	if ipv4 {
		a, _ := p.Interface.IPv4()
		return a.Addr()
	}
	a, _ := p.Interface.IPv6()
	return a.Addr()
}

// neighborOmitted says why the VM is not answered for a permanent neighbour;
// empty: it is.
func neighborOmitted(p prepare.Plan, n discover.Neighbor) string {
	_, has4 := p.Interface.IPv4()
	switch {
	case n.MAC.IsZero():
		return "its MAC is not of Ethernet"
	case n.Address.Is4() && !has4, n.Address.Is6() && p.IPv6 == nil:
		return "the VM gets no address of its family"
	}
	return ""
}

// unsent are the settings that can't be sent.
func (h Hook) unsent(p prepare.Plan, pod discover.Pod, d defaultRoutes) []discover.Omission {
	name := p.Interface.Name
	settings := h.leaseOf(name)
	var notes []string
	if l, ok := newLease(p, pod, d.ipv4 == name, settings); ok {
		_, left := l.Normalize()
		notes = append(notes, left...)
	}
	if l, ok := newLease6(p, pod, settings); ok {
		_, left := l.Normalize()
		notes = append(notes, left...)
	}
	if a, ok := newAdvertisement(p, pod, d.ipv6 == name, settings); ok {
		_, left := a.Normalize()
		notes = append(notes, left...)
	}
	var out []discover.Omission
	for i, note := range notes {
		if !slices.Contains(notes[:i], note) { // several servers tell the same
			what, why, _ := strings.Cut(note, " left out: ")
			out = append(out, discover.Omission{What: what, Why: why})
		}
	}
	return out
}
