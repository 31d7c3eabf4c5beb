package podside

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// replay adds or deletes an address, a route or a neighbor by the kernel's own
// message.
type replay struct {
	kind    string // addr, route, neigh: ip(8)'s object
	add     bool
	text    string
	message []byte
	first   bool // a route that is added in front of its equals
	// known is the message of an IPv6 address that is added without asking who else has it,
	// and has its own flags after that; nil: what is added is added as it is.
	known []byte
}

func (o replay) String() string {
	ip := "ip "
	// A default route without a gateway is one of IPv4 to ip(8).
	if len(o.message) > 0 && o.message[0] == unix.AF_INET6 && strings.Contains(o.text, "default") {
		ip = "ip -6 "
	}
	switch {
	case o.add && o.first:
		return ip + o.kind + " prepend " + o.text
	case o.add && o.known != nil:
		return fmt.Sprintf("ip addr add %s nodad\nip addr change %s", o.text, o.text)
	case o.add:
		return ip + o.kind + " add " + o.text
	}
	return ip + o.kind + " del " + o.text
}

// Inverse deletes or adds it.
func (o replay) Inverse() engine.Op {
	o.add = !o.add
	return o
}

// Do sends the message. What is there already is added; what the kernel has taken
// away along with something else is deleted.
func (o replay) Do(k *engine.Kernel) error {
	kinds := map[string]struct{ add, del, flags int }{
		"addr":  {unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.NLM_F_EXCL},
		"route": {unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.NLM_F_APPEND}, // beside one to the same destination, as it was
		"neigh": {unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH, unix.NLM_F_EXCL},
	}
	kind := kinds[o.kind]
	if o.add && o.first { // before its equals (fib_table_insert, net/ipv4/fib_trie.c), also if the kernel has just added it behind them
		if err := o.Inverse().Do(k); err != nil {
			return err
		}
		kind.flags = 0
	}
	if o.add && o.known != nil {
		err := k.Conn.Request(kind.add, unix.NLM_F_CREATE|kind.flags, nl.Raw(o.known))
		if err == nil {
			err = k.Conn.Request(kind.add, unix.NLM_F_REPLACE, nl.Raw(o.message))
		}
		return engine.Ignore(err, unix.EEXIST)
	}
	if o.add {
		return engine.Ignore(k.Conn.Request(kind.add, unix.NLM_F_CREATE|kind.flags, nl.Raw(o.message)), unix.EEXIST)
	}
	return engine.Ignore(k.Conn.Request(kind.del, 0, nl.Raw(o.message)), unix.ESRCH, unix.EADDRNOTAVAIL, unix.ENOENT)
}

func addressOp(add bool, link string, a discover.Address) engine.Op {
	return replay{kind: "addr", add: add, text: addressText(a) + " dev " + link, message: addressRequest(a), known: knownRequest(a)}
}

// knownRequest is the message by which an IPv6 address is the link's at once, as it was
// before: no route can have one as its source as long as the kernel asks who else has it
// (ip6_route_info_create, net/ipv6/route.c). nil: it does not ask, or had not found out.
func knownRequest(a discover.Address) []byte {
	const others = unix.IFA_F_NODAD | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED
	if !a.Prefix.Addr().Is6() || a.Flags&others != 0 || len(a.Message) < unix.SizeofIfAddrmsg {
		return nil
	}
	m := slices.Clone(a.Message)
	m[2] |= unix.IFA_F_NODAD
	if flags := nl.Attributes(m[unix.SizeofIfAddrmsg:]).Get(unix.IFA_FLAGS); len(flags) == 4 {
		binary.NativeEndian.PutUint32(flags, binary.NativeEndian.Uint32(flags)|unix.IFA_F_NODAD)
	}
	return m
}

// addressText writes an address as ip-address(8) takes it: with the peer's, to which
// the length belongs, where it has one.
func addressText(a discover.Address) string {
	if peer, ok := peerOf(a); ok {
		return fmt.Sprintf("%s peer %s/%d", a.Prefix.Addr(), peer, a.Prefix.Bits())
	}
	return a.Prefix.String()
}

// peerOf returns the address of the peer, if a has one.
func peerOf(a discover.Address) (peer netip.Addr, ok bool) {
	attrs := nl.Attributes(a.Message[min(len(a.Message), unix.SizeofIfAddrmsg):])
	peer, ok = netip.AddrFromSlice(attrs.Get(unix.IFA_ADDRESS))
	local := attrs.Get(unix.IFA_LOCAL)
	return peer, ok && local != nil && !bytes.Equal(local, peer.AsSlice())
}

// addressRequest makes of the ifaddrmsg that the kernel sent one of which it makes the
// same: of a deprecated IPv4 address that has no end it tells that it is preferred for
// ever, and takes that at its word (inet_fill_ifaddr and set_ifa_lifetime,
// net/ipv4/devinet.c).
func addressRequest(a discover.Address) []byte {
	if !a.Prefix.Addr().Is4() || a.Flags&unix.IFA_F_DEPRECATED == 0 || len(a.Message) < unix.SizeofIfAddrmsg {
		return a.Message
	}
	m := slices.Clone(a.Message)
	if times := nl.Attributes(m[unix.SizeofIfAddrmsg:]).Get(unix.IFA_CACHEINFO); len(times) >= 4 {
		clear(times[:4]) // the preferred lifetime
	}
	return m
}

// neighborOp is for a permanent neighbor, or for one that is answered for, which has
// no MAC.
func neighborOp(add bool, link string, n discover.Neighbor) engine.Op {
	text := fmt.Sprintf("%s lladdr %s dev %s nud permanent", n.Address, n.MAC, link)
	if n.MAC.IsZero() {
		text = fmt.Sprintf("proxy %s dev %s", n.Address, link)
	}
	return replay{kind: "neigh", add: add, text: text, message: n.Message}
}

func routeOp(add bool, link string, r discover.Route) engine.Op {
	return replay{kind: "route", add: add, first: r.First, message: routeRequest(r.Message), text: r.Text(nextHopWords(r, link)...)}
}

// nextHopWords says where a route by one link leads.
func nextHopWords(r discover.Route, link string) []string {
	hops := nl.NextHops(nl.Attributes(r.Message[min(len(r.Message), unix.SizeofRtMsg):]).Get(unix.RTA_MULTIPATH))
	if len(hops) == 0 {
		return viaWords(r.Gateway, link, r.Destination)
	}
	var words []string
	for _, hop := range hops {
		gateway, _ := netip.AddrFromSlice(hop.Attributes().Get(unix.RTA_GATEWAY))
		words = append(append(words, "nexthop"), viaWords(gateway, link, r.Destination)...)
		words = append(words, fmt.Sprintf("weight %d", int(hop[3])+1)) // rtnh_hops
	}
	return words
}

func viaWords(gateway netip.Addr, link string, to netip.Prefix) []string {
	switch {
	case !gateway.IsValid():
		return []string{"dev", link}
	case gateway.Is4() != to.Addr().Is4():
		return []string{"via inet6", gateway.String(), "dev", link}
	}
	return []string{"via", gateway.String(), "dev", link}
}

// onlyFlags are the flags of a next hop that are not about its condition.
const onlyFlags = unix.RTNH_F_ONLINK

// routeRequest makes of the rtmsg that the kernel sent one that it accepts:
// without the flags that describe a route's condition (fib_create_info and
// fib_get_nhs, net/ipv4/fib_semantics.c, refuse them), and with the lifetime that is
// left where the kernel takes one (rtm_to_fib6_config, net/ipv6/route.c).
func routeRequest(message []byte) []byte {
	if len(message) < unix.SizeofRtMsg {
		return message // the kernel refuses it
	}
	out := slices.Clone(message[:unix.SizeofRtMsg])
	binary.NativeEndian.PutUint32(out[8:], binary.NativeEndian.Uint32(out[8:])&onlyFlags)
	for attr, value := range nl.Attributes(message[unix.SizeofRtMsg:]).All() {
		switch attr {
		case unix.RTA_CACHEINFO:
			if seconds := lifetime(value); seconds > 0 && message[0] == unix.AF_INET6 {
				out = appendAttr(out, unix.RTA_EXPIRES, binary.NativeEndian.AppendUint32(nil, seconds))
			}
		case unix.RTA_MULTIPATH:
			value = slices.Clone(value)
			for _, hop := range nl.NextHops(value) {
				hop[2] &= onlyFlags // rtnh_flags
			}
			fallthrough
		default:
			out = appendAttr(out, attr, value)
		}
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

func appendAttr(m []byte, typ uint16, value []byte) []byte {
	return append(m, vnl.NewRtAttr(int(typ), value).Serialize()...)
}
