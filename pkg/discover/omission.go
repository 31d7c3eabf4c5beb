package discover

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// otherType is why the VM does not get a route that leads nowhere, or into the pod.
const otherType = "DHCP and router advertisements can't express a route of this type"

// Omission is something of a pod that its VM does not get.
type Omission struct {
	What string `json:"what"` // such as "address fd00::8/64"
	Why  string `json:"why"`
}

// String is both in one line.
func (o Omission) String() string { return o.What + ": " + o.Why }

// omissions returns what of an interface can't be given to its VM. What neither
// DHCP nor a router advertisement can say of the routes in [Interface.PodRoutes] is
// for whoever makes these to tell.
func (i Interface) omissions() []Omission {
	var out []Omission
	for _, a := range i.Addresses {
		if why := i.addressOmitted(a); why != "" {
			out = append(out, Omission{"address " + a.Prefix.String(), why})
		}
	}
	for _, r := range i.Routes {
		if why := i.routeOmitted(r); why != "" {
			out = append(out, Omission{"route " + r.String(), why})
		}
	}
	for _, n := range i.Proxies {
		out = append(out, Omission{"proxied neighbor " + n.Address.String(), "the pod answers for it, a VM does not"})
	}
	return out
}

// addressOmitted says why the VM does not get an address; empty: it does, or the
// address is the kernel's own for the link.
func (i Interface) addressOmitted(a Address) string {
	first, _ := i.IPv4()
	if a.isIPv6() {
		first, _ = i.IPv6()
	}
	switch {
	case a.Prefix == first, a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast():
		return ""
	case a.FromRouter() && !i.Addressed(): // the VM hears the router itself
		return ""
	case a.FromRouter():
		return "it comes from a router advertisement, not from the CNI"
	case !a.Global():
		return fmt.Sprintf("its scope is %s: other hosts can't use it", a.Scope)
	case a.Flags&unix.IFA_F_DADFAILED != 0:
		return "it is a duplicate: another host on the link has it"
	case a.Flags&unix.IFA_F_TENTATIVE != 0:
		return "duplicate address detection is still running"
	case a.Flags&unix.IFA_F_DEPRECATED != 0:
		return "it is deprecated"
	case a.Prefix.Addr().Is4():
		return fmt.Sprintf("DHCP gives the VM one IPv4 address, %s; the VM may add this one itself", first)
	}
	return fmt.Sprintf("the VM gets one IPv6 address, %s", first)
}

// routeOmitted says why the VM can't have a route; empty: it can, or the route is
// the kernel's own for the link.
func (i Interface) routeOmitted(r Route) string {
	switch to := r.Destination.Addr(); {
	case r.Protocol == unix.RTPROT_KERNEL && (r.Type != unix.RTN_UNICAST || to.IsLinkLocalUnicast() && to.Is6()), to.IsMulticast() && to.Is6():
		return ""
	case i.routerMade(r) && !i.Addressed():
		return ""
	case i.routerMade(r):
		return "it comes from a router advertisement, not from the CNI"
	case r.Type != unix.RTN_UNICAST:
		return otherType
	case i.tableRank(r) < 0:
		return fmt.Sprintf("it is in table %d, which no rule selects for packets from the address of %s", r.Table, i.Name)
	case len(r.Links) > 1:
		return fmt.Sprintf("the VM gets only its first next hop, %s", hop(r))
	}
	return ""
}

func hop(r Route) string {
	if !r.Gateway.IsValid() {
		return "on the link"
	}
	return r.Gateway.String()
}

// podOmissions returns what of the pod belongs to none of the interfaces that its
// VM gets.
func (k kernel) podOmissions(chosen []Interface) []Omission {
	var out []Omission
	for _, r := range k.routes { // IPv6 has them by the loopback
		if r.Type >= unix.RTN_BLACKHOLE && r.Type <= unix.RTN_THROW && r.Protocol != unix.RTPROT_KERNEL {
			out = append(out, Omission{"route " + r.String(), otherType})
		}
	}
	for _, r := range k.rules {
		if !k.isTakenIn(r, chosen) {
			out = append(out, Omission{r.String(), "DHCP and router advertisements can't express policy rules"})
		}
	}
	for _, l := range k.links {
		if l.Loopback() || slices.ContainsFunc(chosen, func(in Interface) bool { return in.Name == l.Name }) {
			continue
		}
		if in := k.newInterface(l); in.hasAddress() {
			out = append(out, Omission{"interface " + in.describe(), "it is not one of the VM's interfaces"})
		}
	}
	return out
}

// isTakenIn reports whether a rule is one that every namespace has, or says
// nothing but which tables the packets from an address look into.
func (k kernel) isTakenIn(r rule, chosen []Interface) bool {
	if r.table == 0 || r.selective {
		return false
	}
	if !r.from.IsValid() || !k.hasRoutes(r.table, r.ipv6) {
		return true
	}
	isFrom := func(a Address) bool { return r.from.Contains(a.Prefix.Addr()) }
	isAbout := func(in Interface) bool { return slices.ContainsFunc(k.addresses[in.Index], isFrom) }
	leads := func(in Interface) bool { return slices.Contains(in.tablesOf(r.ipv6), r.table) }
	return !slices.ContainsFunc(chosen, isAbout) || slices.ContainsFunc(chosen, leads)
}

func (i Interface) tablesOf(ipv6 bool) []int {
	if ipv6 {
		return i.Tables6
	}
	return i.Tables4
}

// String describes the rule.
func (r rule) String() string {
	s, from := fmt.Sprintf("rule %d", r.priority), "all"
	if r.from.IsValid() {
		from = r.from.String()
	}
	s += " from " + from
	if r.selective {
		s += " …"
	}
	if r.table != 0 {
		s += fmt.Sprintf(" lookup %d", r.table)
	}
	return s
}

// describe names the interface and what it has.
func (i Interface) describe() string {
	var has []string
	for _, a := range i.Addresses {
		if a.Global() {
			has = append(has, a.Prefix.String())
		}
	}
	if i.HasDefaultRoute(true) {
		has = append(has, "the IPv4 default route")
	}
	if i.HasDefaultRoute(false) {
		has = append(has, "the IPv6 default route")
	}
	return fmt.Sprintf("%s (%s)", i.Name, strings.Join(has, ", "))
}
