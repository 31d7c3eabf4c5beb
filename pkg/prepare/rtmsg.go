package prepare

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// stands is what of a next hop's flags is not about its condition.
const stands = unix.RTNH_F_ONLINK

// routeRequest makes of the rtmsg that the kernel sent one that it accepts:
// without the flags that describe a route's condition (fib_create_info and
// fib_get_nhs, net/ipv4/fib_semantics.c, refuse them), without the next hops that
// a nexthop object has (lwtunnel_valid_encap_type_attr and rtm_to_fib_config
// refuse them beside its id), and with the lifetime that is left where the kernel
// takes one (rtm_to_fib6_config, net/ipv6/route.c).
func routeRequest(message []byte) []byte {
	r, ok := splitRoute(message)
	if !ok {
		return message // the kernel refuses it
	}
	byObject := slices.ContainsFunc(r.attrs, func(a attr) bool { return a.typ == nl.AttrNextHopID })
	out := r.header
	for _, a := range r.attrs {
		switch a.typ {
		case unix.RTA_CACHEINFO:
			if seconds := lifetime(a.value); seconds > 0 && message[0] == unix.AF_INET6 {
				out = appendAttr(out, unix.RTA_EXPIRES, binary.NativeEndian.AppendUint32(nil, seconds))
			}
			continue
		case unix.RTA_OIF, unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_ENCAP, unix.RTA_ENCAP_TYPE, unix.RTA_MULTIPATH:
			if byObject {
				continue
			}
		}
		out = appendAttr(out, a.typ, a.value)
	}
	return out
}

const userHZ = 100 // clock ticks per second in what the kernel tells (time(7))

// lifetime is the seconds that struct rta_cacheinfo (linux/rtnetlink.h) leaves a
// route; 0: it has no end. One that has just ended has a second.
func lifetime(cacheinfo []byte) uint32 {
	if len(cacheinfo) < 12 {
		return 0
	}
	ticks := int32(binary.NativeEndian.Uint32(cacheinfo[8:]))
	if ticks == 0 {
		return 0
	}
	return uint32(max(1, ticks/userHZ))
}

// routeKey is the same for two messages about the same route.
func routeKey(r discover.Route) string {
	split, ok := splitRoute(routeRequest(r.Message))
	if !ok {
		return string(r.Message)
	}
	key := []string{string(split.header)}
	for _, a := range split.attrs {
		if a.typ != unix.RTA_EXPIRES {
			key = append(key, string(appendAttr(nil, a.typ, a.value)))
		}
	}
	slices.Sort(key[1:])
	return strings.Join(key, "")
}

// attr is a netlink attribute.
type attr struct {
	typ   uint16
	value []byte
}

// routeParts are a rtmsg's header and attributes, without flags that describe a
// condition.
type routeParts struct {
	header []byte
	attrs  []attr
}

func splitRoute(message []byte) (r routeParts, ok bool) {
	if len(message) < unix.SizeofRtMsg {
		return r, false
	}
	r.header = slices.Clone(message[:unix.SizeofRtMsg])
	flags := binary.NativeEndian.Uint32(r.header[8:])
	binary.NativeEndian.PutUint32(r.header[8:], flags&stands)
	if r.attrs, ok = splitAttrs(message[unix.SizeofRtMsg:]); !ok {
		return r, false
	}
	for i, a := range r.attrs {
		if a.typ != unix.RTA_MULTIPATH {
			continue
		}
		r.attrs[i].value = slices.Clone(a.value)
		hops, err := nl.NextHops(r.attrs[i].value)
		if err != nil {
			return r, false
		}
		for _, hop := range hops {
			hop[2] &= stands // rtnh_flags
		}
	}
	return r, true
}

func splitAttrs(b []byte) (attrs []attr, ok bool) {
	for len(b) >= unix.SizeofRtAttr {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, false
		}
		attrs = append(attrs, attr{binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size]})
		b = b[min(len(b), (size+3)&^3):]
	}
	return attrs, true
}

func (r routeParts) message() []byte {
	m := slices.Clone(r.header)
	for _, a := range r.attrs {
		m = appendAttr(m, a.typ, a.value)
	}
	return m
}

// withoutSource takes the preferred source out of a route.
func withoutSource(message []byte) []byte {
	r, ok := splitRoute(message)
	if !ok {
		return message
	}
	r.attrs = slices.DeleteFunc(r.attrs, func(a attr) bool { return a.typ == unix.RTA_PREFSRC })
	return r.message()
}

// withoutNextHops takes the next hops by some links out of a route, and returns
// the first gateway that it has then; ok is false if no next hop is left. A
// single one is no multipath route to the kernel.
func withoutNextHops(message []byte, out func(index int) bool) (_ []byte, gateway netip.Addr, ok bool) {
	r, ok := splitRoute(message)
	if !ok {
		return nil, gateway, false
	}
	i := slices.IndexFunc(r.attrs, func(a attr) bool { return a.typ == unix.RTA_MULTIPATH })
	if i < 0 {
		return nil, gateway, false
	}
	hops, err := nl.NextHops(r.attrs[i].value)
	hops = slices.DeleteFunc(hops, func(h nl.NextHop) bool { return out(h.Index()) })
	if err != nil || len(hops) == 0 {
		return nil, gateway, false
	}
	gateway = nextHop{hops[0]}.gateway()
	if len(hops) > 1 {
		r.attrs[i].value = slices.Concat(hops...)
		return r.message(), gateway, true
	}
	first, ok := splitAttrs(hops[0].Attributes())
	binary.NativeEndian.PutUint32(r.header[8:], uint32(hops[0][2]))
	oif := attr{unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(hops[0].Index()))}
	r.attrs = slices.Replace(r.attrs, i, i+1, append(first, oif)...)
	return r.message(), gateway, ok
}

// nextHop is a next hop of a multipath route.
type nextHop struct{ nl.NextHop }

func (h nextHop) gateway() (gateway netip.Addr) {
	attrs, _ := splitAttrs(h.Attributes())
	for _, a := range attrs {
		if a.typ == unix.RTA_GATEWAY {
			gateway, _ = netip.AddrFromSlice(a.value)
		}
	}
	return gateway
}

// nextHops are those of a multipath route.
func nextHops(message []byte) (out []nextHop) {
	r, _ := splitRoute(message)
	for _, a := range r.attrs {
		if a.typ != unix.RTA_MULTIPATH {
			continue
		}
		hops, err := nl.NextHops(a.value)
		if err != nil {
			return nil
		}
		for _, hop := range hops {
			out = append(out, nextHop{hop})
		}
	}
	return out
}
