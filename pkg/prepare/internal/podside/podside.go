// Package podside takes a pod interface's addresses, routes and neighbors away, and
// puts them back, by the kernel's own messages, so that no attribute is lost. It is
// for datapaths that take the interface from the pod.
package podside

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// Take adds what takes from an interface all that it has now.
func Take(now discover.Interface, st *engine.Steps) {
	for _, r := range routeOrder(now.Routes) {
		st.Drop(r, routeOp(false, now.Name, r))
	}
	for _, n := range slices.Concat(now.Neighbors, now.Proxies) {
		st[engine.DropVia] = append(st[engine.DropVia], neighborOp(false, now.Name, n))
	}
	for _, a := range slices.Backward(addressOrder(now.Addresses)) {
		st[engine.Links] = append(st[engine.Links], addressOp(false, now.Name, a))
	}
}

// PutBack adds what gives an interface what it had and lacks now; all are the routes
// that there are, by whatever link, in the kernel's order.
func PutBack(was, now discover.Interface, all []discover.Route, st *engine.Steps) {
	for _, a := range addressOrder(was.Addresses) {
		missing := !now.Has(a.Prefix)
		if missing {
			st[engine.Links] = append(st[engine.Links], addressOp(true, was.Name, a))
		}
		// The kernel adds the route to the address's network, also where
		// the CNI had taken it away.
		if r, ok := networkRoute(was.Index, a); ok && !slices.ContainsFunc(was.Routes, same(r)) &&
			(missing || slices.ContainsFunc(now.Routes, same(r))) {
			st[engine.Links] = append(st[engine.Links], routeOp(false, was.Name, r))
		}
	}
	for _, r := range routeOrder(was.Routes) {
		switch {
		case !slices.ContainsFunc(now.Routes, same(r)):
			st.Add(r, routeOp(true, was.Name, r))
		case r.First && isBehind(r, all): // where the kernel put it with the address
			last := r
			last.First = false
			st.Add(r, routeOp(false, was.Name, last))
			st.Add(r, routeOp(true, was.Name, r))
		}
	}
	for _, n := range slices.Concat(missing(was.Neighbors, now.Neighbors), missing(was.Proxies, now.Proxies)) {
		st[engine.End] = append(st[engine.End], neighborOp(true, was.Name, n))
	}
}

// Unplanned names something that an interface has now and that it was not planned with, so
// that it would not be put back; empty: there is nothing. What the kernel makes of the link
// itself or of a router's advertisement comes at any time, and comes again.
func Unplanned(was, now discover.Interface) string {
	for _, a := range now.Addresses {
		ofKernel := a.FromRouter() || a.Prefix.Addr().Is6() && a.Prefix.Addr().IsLinkLocalUnicast()
		if !ofKernel && !was.Has(a.Prefix) {
			return "address " + a.Prefix.String()
		}
	}
	for _, r := range now.Routes {
		ofKernel := r.Protocol == unix.RTPROT_KERNEL || r.Protocol == unix.RTPROT_RA
		if !ofKernel && !slices.ContainsFunc(was.Routes, same(r)) {
			return "route " + r.String()
		}
	}
	if more := slices.Concat(missing(now.Neighbors, was.Neighbors), missing(now.Proxies, was.Proxies)); len(more) > 0 {
		return "neighbor " + more[0].Address.String()
	}
	return ""
}

// WithNew is an interface as it was, but for the permanent neighbors that have got another
// MAC, by a link that has its name, since: a CNI has changed them there.
func WithNew(was discover.Interface, neighbors []discover.Neighbor) discover.Interface {
	was.Neighbors = slices.Clone(was.Neighbors)
	for i, old := range was.Neighbors {
		n := slices.IndexFunc(neighbors, func(n discover.Neighbor) bool { return n.Address == old.Address })
		if n < 0 || neighbors[n].MAC == old.MAC {
			continue
		}
		m := slices.Clone(neighbors[n].Message)
		binary.NativeEndian.PutUint32(m[4:], uint32(was.Index)) // ndm_ifindex
		was.Neighbors[i] = discover.Neighbor{Address: old.Address, MAC: neighbors[n].MAC, Message: m}
	}
	return was
}

// isBehind tells whether an equal route by another link is listed before r.
func isBehind(r discover.Route, all []discover.Route) bool {
	for _, o := range all {
		if slices.Equal(o.Links, r.Links) && same(r)(o) {
			return false
		}
		if o.SamePlace(r) && !slices.Equal(o.Links, r.Links) {
			return true
		}
	}
	return false
}

// Addresses add the addresses that an interface has now, by their messages.
func Addresses(now discover.Interface) []engine.Op {
	var ops []engine.Op
	for _, a := range addressOrder(now.Addresses) {
		ops = append(ops, addressOp(true, now.Name, a))
	}
	return ops
}

// missing are those of was whose address none has now.
func missing(was, now []discover.Neighbor) []discover.Neighbor {
	return slices.DeleteFunc(slices.Clone(was), func(n discover.Neighbor) bool {
		return slices.ContainsFunc(now, func(m discover.Neighbor) bool { return m.Address == n.Address })
	})
}

// same compares routes by what they do.
func same(a discover.Route) func(discover.Route) bool {
	return func(b discover.Route) bool {
		return a.Destination == b.Destination && a.From == b.From && a.TOS == b.TOS && a.Table == b.Table && a.Metric == b.Metric &&
			a.Gateway == b.Gateway && a.Source == b.Source && a.Type == b.Type && a.Protocol == b.Protocol && a.Scope == b.Scope
	}
}

// networkRoute is the route to the network of a, or of IPv4 to that of its peer, that the
// kernel makes when a is added to a link (fib_add_ifaddr, net/ipv4/fib_frontend.c;
// inet6_addr_add, net/ipv6/addrconf.c). ok is false if it makes none.
func networkRoute(index int, a discover.Address) (r discover.Route, ok bool) {
	addr, network := a.Prefix.Addr(), a.Prefix
	peer, hasPeer := peerOf(a)
	if addr.Is4() && hasPeer {
		network = netip.PrefixFrom(peer, network.Bits())
	}
	isSecondary := addr.Is4() && a.Flags&unix.IFA_F_SECONDARY != 0 // the first address of the network has the route
	if a.Flags&unix.IFA_F_NOPREFIXROUTE != 0 || isSecondary || addr.Is4() && network == netip.PrefixFrom(addr, addr.BitLen()) {
		return discover.Route{}, false
	}
	r = discover.Route{
		Destination: network.Masked(), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL,
		Scope: unix.RT_SCOPE_LINK, Source: addr,
	}
	family := byte(unix.AF_INET)
	if addr.Is6() {
		family, r.Scope, r.Source, r.Metric = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE, netip.Addr{}, 256 // IP6_RT_PRIO_ADDRCONF
	}
	// struct rtmsg, linux/rtnetlink.h
	m := []byte{family, byte(r.Destination.Bits()), 0, 0, byte(r.Table), r.Protocol, byte(r.Scope), r.Type, 0, 0, 0, 0}
	m = appendAttr(m, unix.RTA_DST, r.Destination.Addr().AsSlice())
	r.Message = appendAttr(m, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return r, true
}

// addressOrder is the order in which addresses were added: the kernel
// lists a link's newest IPv6 address first (ipv6_link_dev_addr,
// net/ipv6/addrconf.c), its newest IPv4 address last.
func addressOrder(addresses []discover.Address) []discover.Address {
	var v4, v6 []discover.Address
	for _, a := range addresses {
		if a.Prefix.Addr().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	slices.Reverse(v6)
	return append(v4, v6...)
}

// routeOrder sorts routes so that what makes an address local comes before the
// routes that may prefer it, and each gateway's own route before one by it: the
// kernel lists them by destination.
func routeOrder(routes []discover.Route) []discover.Route {
	rank := func(r discover.Route) int {
		switch {
		case r.Gateway.IsValid():
			return 2
		case r.Table != unix.RT_TABLE_LOCAL:
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(routes), func(a, b discover.Route) int { return cmp.Compare(rank(a), rank(b)) })
}
