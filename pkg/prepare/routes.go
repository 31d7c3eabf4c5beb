package prepare

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// A route may need more than one interface: next hops by two of them, or one to
// leave by and another's address as its preferred source. While some of these
// are rewired the pod has what is left of it, and the whole route when they are
// back.

// sharedSteps takes away, and puts back, what the kernel would take from the
// routes that the plans' interfaces share with others. Before and after are the
// interfaces that are rewired then; losing are the links whose addresses go.
func sharedSteps(s state, plans []Plan, before, after []discover.Interface, losing []int) (st steps) {
	routes := sharedRoutes(plans)
	if len(routes) == 0 {
		return st
	}
	present := map[string]bool{}
	for _, r := range s.routes {
		present[routeKey(r)] = true
	}
	name := s.namer(plans)
	for _, r := range replayOrder(routes) {
		from, had := s.reduced(r, before, plans)
		to, has := s.reduced(r, after, plans)
		goes := had && present[routeKey(from)] && (!has || routeKey(from) != routeKey(to) || s.holds(losing, r.Source))
		if goes {
			st.goes(from, change{kind: "route", text: routeText(from, name), message: routeRequest(from.Message)})
		}
		if has && (goes || !present[routeKey(to)]) {
			st.comes(to, othersRoute{change{kind: "route", add: true, text: routeText(to, name), message: routeRequest(to.Message)}})
		}
	}
	return st
}

// sharedRoutes are the routes of plans that need more than their own interface,
// each once.
func sharedRoutes(plans []Plan) []discover.Route {
	var out []discover.Route
	known := map[string]bool{}
	for _, p := range plans {
		for _, r := range slices.Concat(p.Interface.Dependents, filter(p.Interface.Routes, p.shares)) {
			if key := routeKey(r); !known[key] {
				known[key] = true
				out = append(out, r)
			}
		}
	}
	return out
}

func filter(routes []discover.Route, keep func(discover.Route) bool) []discover.Route {
	return slices.DeleteFunc(slices.Clone(routes), func(r discover.Route) bool { return !keep(r) })
}

// shares reports whether a route by the plan's interface needs more than that.
// An older record does not tell.
func (p Plan) shares(r discover.Route) bool {
	return slices.ContainsFunc(r.Links, func(index int) bool { return index != p.Interface.Index }) ||
		len(r.Links) > 0 && r.Source.IsValid() && !hasAddr(p.Interface, r.Source)
}

// ownRoutes are the routes that need nothing but the plan's interface.
func (p Plan) ownRoutes() []discover.Route {
	return slices.DeleteFunc(slices.Clone(p.Interface.Routes), p.shares)
}

// needs reports whether a route goes, or is cut short, with an interface.
func needs(r discover.Route, in discover.Interface) bool {
	return slices.Contains(r.Links, in.Index) || hasAddr(in, r.Source)
}

func hasAddr(in discover.Interface, a netip.Addr) bool {
	return slices.ContainsFunc(in.Addresses, func(b discover.Address) bool { return b.Prefix.Addr() == a })
}

func containsRoute(routes []discover.Route, r discover.Route) bool {
	key := routeKey(r)
	return slices.ContainsFunc(routes, func(o discover.Route) bool { return routeKey(o) == key })
}

// holds reports whether one of the links has the address.
func (s state) holds(links []int, a netip.Addr) bool {
	return slices.ContainsFunc(links, func(index int) bool { return hasAddr(s.interfaces[index], a) })
}

// reduced is what is left of a route while the interfaces away are rewired:
// their next hops are gone, and their IPv6 addresses, since the placeholder has
// none. So are next hops by links that are gone or down, but for the plans' own.
// ok is false if nothing is left.
func (s state) reduced(r discover.Route, away []discover.Interface, plans []Plan) (left discover.Route, ok bool) {
	out := func(index int) bool {
		if slices.ContainsFunc(away, func(in discover.Interface) bool { return in.Index == index }) {
			return true
		}
		if slices.ContainsFunc(plans, func(p Plan) bool { return p.Interface.Index == index }) {
			return false
		}
		l := s.linkByIndex(index)
		return l == nil || !l.Up()
	}
	if r.Source.Is6() && slices.ContainsFunc(away, func(in discover.Interface) bool { return hasAddr(in, r.Source) }) {
		r.Source, r.Message = netip.Addr{}, withoutSource(r.Message)
	}
	if !slices.ContainsFunc(r.Links, out) {
		return r, true
	}
	if r.Message, r.Gateway, ok = withoutNextHops(r.Message, out); !ok {
		return discover.Route{}, false
	}
	r.Links = slices.DeleteFunc(slices.Clone(r.Links), out)
	return r, true
}

// namer names links as they are called while routes are changed.
func (s state) namer(plans []Plan) func(index int) string {
	return func(index int) string {
		for _, p := range plans {
			if p.Interface.Index == index {
				return p.Interface.Name
			}
		}
		if l := s.linkByIndex(index); l != nil {
			return l.Name
		}
		return ""
	}
}

// inherit has p know what the kernel no longer shows, since others' interfaces
// are rewired already: the routes that they share with p's, of which only a part
// is left, and that p's routes come before theirs.
func (p Plan) inherit(s state, others []Plan) Plan {
	p.Interface.Routes = slices.Clone(p.Interface.Routes)
	for i, r := range p.Interface.Routes {
		p.Interface.Routes[i].First = wasFirst(r, others)
	}
	away := interfacesOf(others)
	for _, r := range sharedRoutes(others) {
		if !needs(r, p.Interface) || containsRoute(slices.Concat(p.Interface.Routes, p.Interface.Dependents), r) {
			continue
		}
		if left, ok := s.reduced(r, away, nil); ok {
			key := routeKey(left)
			same := func(o discover.Route) bool { return routeKey(o) == key }
			p.Interface.Routes = slices.DeleteFunc(p.Interface.Routes, same)
			p.Interface.Dependents = slices.DeleteFunc(slices.Clone(p.Interface.Dependents), same)
		}
		p.Interface.Dependents = append(p.Interface.Dependents, r)
	}
	return p
}

// wasFirst reports whether a route came before its rivals by others' interfaces.
func wasFirst(r discover.Route, others []Plan) bool {
	first := r.First
	for _, o := range others {
		for _, rival := range filter(o.Interface.Routes, r.Rivals) {
			if rival.First {
				return false
			}
			first = true
		}
	}
	return first
}

func interfacesOf(plans []Plan) []discover.Interface {
	out := make([]discover.Interface, len(plans))
	for i, p := range plans {
		out[i] = p.Interface
	}
	return out
}
