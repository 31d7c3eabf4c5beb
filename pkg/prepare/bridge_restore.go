package prepare

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// restoreOps returns what is still to do, in order, so that the plans'
// interfaces are as the CNI left them, beside others that stay prepared: nothing
// if they are. Like applyOps it works from every state in between.
func restoreOps(s state, plans, others []Plan) []op {
	var all steps
	var losing []int
	for _, p := range plans {
		all.and(p.restoreSteps(s))
		if l := p.placeholder(s); l != nil {
			losing = append(losing, l.Index)
		}
	}
	after := interfacesOf(others)
	all.and(sharedSteps(s, plans, slices.Concat(after, interfacesOf(plans)), after, losing))
	return all.ops()
}

func (p Plan) restoreOps(s state) []op { return restoreOps(s, []Plan{p}, nil) }

// restoreSteps is p's own part of restoreOps.
func (p Plan) restoreSteps(s state) (st steps) {
	if l := p.placeholder(s); l != nil {
		st[linkStep] = append(st[linkStep], dropPlaceholder(*l, s.interfaces[l.Index]))
	}
	if l := p.uplink(s); l != nil {
		now := s.interfaces[l.Index]
		st[linkStep] = append(st[linkStep], p.restoreUplinkOps(s, *l)...)
		st[linkStep] = append(st[linkStep], fillAddresses(p.Interface, now)...)
		p.fillRoutes(&st, s, now)
		st[endStep] = fillNeighbors(p.Interface, now)
	}
	st[endStep] = append(st[endStep], dropTableOps(s, p.guard())...)
	st[endStep] = append(st[endStep], dropTableOps(s, p.answers())...)
	if l := p.tap(s); l != nil {
		st[endStep] = append(st[endStep], p.dropTap(s, *l))
	}
	if l := p.bridge(s); l != nil {
		st[endStep] = append(st[endStep], delLink{l.Name, bridgeAsIs(*l)})
	}
	return st
}

// knobRestoreOps puts back the switches that knobOps turned off.
func knobRestoreOps(s state, were map[string]string) []op {
	var ops []op
	for _, name := range knobNames {
		if was, now := were[name], s.knobs[name]; was != "" && now != "" && was != now {
			ops = append(ops, setKnob{name, now, was})
		}
	}
	return ops
}

func dropPlaceholder(l nl.Link, in discover.Interface) op {
	rebuild := bridgeAsIs(l)
	for _, a := range addressReplayOrder(in.Addresses) { // by the kernel's own message, which has the link's index
		rebuild = append(rebuild, addressChange(true, l.Name, a))
	}
	return delLink{l.Name, rebuild}
}

func (p Plan) dropTap(s state, l nl.Link) op {
	tap := p.Tap
	tap.MAC = l.MAC
	rebuild := sequence{
		addTap{tap: tap, index: l.Index},
		setMTU{l.Name, 1500, l.MTU},
		setAddrGenMode{l.Name, 0, max(0, l.AddrGenMode)},
	}
	if s.filtered[l.Index] {
		rebuild = append(rebuild, addChecksumFilter{l.Name})
	}
	if m := s.master(l); m != "" {
		rebuild = append(rebuild, setMaster{l.Name, "", m})
		if l.GroupForward != 0 {
			rebuild = append(rebuild, setGroupForward{l.Name, 0, l.GroupForward})
		}
	}
	if l.Up() {
		rebuild = append(rebuild, setUp{l.Name, true})
	}
	return delLink{l.Name, rebuild}
}

// bridgeAsIs makes a bridge again as it is now.
func bridgeAsIs(l nl.Link) sequence {
	seq := sequence{addBridge{l.Name, l.MAC, l.MTU, l.Index}, setAddrGenMode{l.Name, 0, max(0, l.AddrGenMode)}}
	if l.Up() {
		seq = append(seq, setUp{l.Name, true})
	}
	return seq
}

// restoreUplinkOps makes the uplink the pod interface again.
func (p Plan) restoreUplinkOps(s state, l nl.Link) []op {
	was := p.Interface
	name, up := l.Name, l.Up()
	var ops []op
	renamed, readdressed := name != was.Name, l.MAC != was.MAC
	if up && (renamed || readdressed) {
		ops = append(ops, setUp{name, false})
		up = false
	}
	if m := s.master(l); m != "" && m == p.Bridge.Name {
		if !l.Learning { // so that undoing this finds the port as it is now
			ops = append(ops, setLearning{name, true})
		}
		if l.GroupForward != 0 { // likewise
			ops = append(ops, setGroupForward{name, l.GroupForward, 0})
		}
		ops = append(ops, setMaster{name, m, ""})
	}
	if readdressed {
		ops = append(ops, setMAC{name, l.MAC, was.MAC})
	}
	if renamed {
		ops = append(ops, rename{name, was.Name})
	}
	if l.MTU != was.MTU {
		ops = append(ops, setMTU{was.Name, l.MTU, was.MTU})
	}
	if mode := l.AddrGenMode; mode != nl.AddrGenModeUnknown && was.AddrGenMode >= 0 && mode != was.AddrGenMode {
		ops = append(ops, setAddrGenMode{was.Name, mode, was.AddrGenMode})
	}
	if up != was.Up {
		ops = append(ops, setUp{was.Name, was.Up})
	}
	return ops
}

// fillAddresses gives an interface the addresses of was that now lacks.
func fillAddresses(was, now discover.Interface) []op {
	var ops []op
	for _, a := range addressReplayOrder(was.Addresses) {
		missing := !hasAddress(now, a)
		if missing {
			ops = append(ops, addressChange(true, was.Name, a))
		}
		// The kernel adds the route to the address's network, also where
		// the CNI had taken it away.
		if r, ok := networkRoute(was.Index, a); ok && !slices.ContainsFunc(was.Routes, r.same) &&
			(missing || slices.ContainsFunc(now.Routes, r.same)) {
			ops = append(ops, routeChange(false, was.Name, r.Route))
		}
	}
	return ops
}

// fillRoutes gives the interface the routes of its own that it lacks now.
func (p Plan) fillRoutes(st *steps, s state, now discover.Interface) {
	name := p.Interface.Name
	for _, r := range replayOrder(p.ownRoutes()) {
		switch {
		case !slices.ContainsFunc(now.Routes, sameRoute{r}.same):
			st.comes(r, routeChange(true, name, r))
		case r.First && s.behind(r): // where the kernel put it with the address
			st.comes(r, routeChange(false, name, last(r)), routeChange(true, name, r))
		}
	}
}

// behind reports whether a rival by another link is listed before a route.
func (s state) behind(r discover.Route) bool {
	for _, o := range s.routes {
		if slices.Equal(o.Links, r.Links) && (sameRoute{r}).same(o) {
			return false
		}
		if o.Rivals(r) && !slices.Equal(o.Links, r.Links) {
			return true
		}
	}
	return false
}

// last is the route where the kernel puts a new one, behind its rivals.
func last(r discover.Route) discover.Route {
	r.First = false
	return r
}

// fillNeighbors gives an interface the neighbours of was that now lacks.
func fillNeighbors(was, now discover.Interface) []op {
	var ops []op
	for _, n := range was.Neighbors {
		if !hasNeighbor(now.Neighbors, n) {
			ops = append(ops, neighborChange(true, was.Name, n))
		}
	}
	for _, n := range was.Proxies {
		if !hasNeighbor(now.Proxies, n) {
			ops = append(ops, proxyChange(true, was.Name, n))
		}
	}
	return ops
}

func hasNeighbor(neighbors []discover.Neighbor, n discover.Neighbor) bool {
	return slices.ContainsFunc(neighbors, func(m discover.Neighbor) bool { return m.Address == n.Address })
}

// sameRoute compares routes by what they do.
type sameRoute struct{ discover.Route }

func (a sameRoute) same(b discover.Route) bool {
	return a.Destination == b.Destination && a.From == b.From && a.TOS == b.TOS && a.Table == b.Table && a.Metric == b.Metric &&
		a.Gateway == b.Gateway && a.Source == b.Source && a.Type == b.Type && a.Protocol == b.Protocol && a.Scope == b.Scope
}

// networkRoute is the route that the kernel makes when a is added to a link
// (fib_add_ifaddr, net/ipv4/fib_frontend.c; addrconf_prefix_route,
// net/ipv6/addrconf.c).
func networkRoute(index int, a discover.Address) (sameRoute, bool) {
	addr, bits := a.Prefix.Addr(), a.Prefix.Bits()
	if bits == addr.BitLen() || a.Flags&unix.IFA_F_NOPREFIXROUTE != 0 {
		return sameRoute{}, false
	}
	r := discover.Route{
		Destination: a.Prefix.Masked(), Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: unix.RTPROT_KERNEL,
		Scope: unix.RT_SCOPE_LINK, Source: addr,
	}
	family := byte(unix.AF_INET)
	if addr.Is6() {
		family, r.Scope, r.Source, r.Metric = unix.AF_INET6, unix.RT_SCOPE_UNIVERSE, netip.Addr{}, 256 // IP6_RT_PRIO_ADDRCONF
	}
	r.Message = routeMessage(family, r, index)
	return sameRoute{r}, true
}

// routeMessage builds the rtmsg (linux/rtnetlink.h) of a route without a gateway.
func routeMessage(family byte, r discover.Route, index int) []byte {
	m := []byte{family, byte(r.Destination.Bits()), 0, 0, byte(r.Table), r.Protocol, byte(r.Scope), r.Type, 0, 0, 0, 0}
	m = appendAttr(m, unix.RTA_DST, r.Destination.Addr().AsSlice())
	return appendAttr(m, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
}

// addressReplayOrder is the order in which addresses were added: the kernel
// lists a link's newest IPv6 address first (ipv6_link_dev_addr,
// net/ipv6/addrconf.c), its newest IPv4 address last.
func addressReplayOrder(addresses []discover.Address) []discover.Address {
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

// replayOrder sorts routes so that what makes an address local comes before the
// routes that may prefer it, and each gateway's own route before one by it: the
// kernel lists them by destination.
func replayOrder(routes []discover.Route) []discover.Route {
	return slices.SortedStableFunc(slices.Values(routes), func(a, b discover.Route) int {
		return cmp.Compare(replayRank(a), replayRank(b))
	})
}

func replayRank(r discover.Route) int {
	switch {
	case r.Gateway.IsValid():
		return 2
	case r.Table != unix.RT_TABLE_LOCAL:
		return 1
	}
	return 0
}
