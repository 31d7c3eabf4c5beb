package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxList is how many addresses or domains of a kind are sent: far more than a
// resolver uses.
const maxList = 32

// Limits of names (RFC 1035 §2.3.4): a name has at most 255 bytes on the wire,
// which are two more than its text.
const (
	maxLabel = 63
	maxName  = 253
)

// Normalize returns the lease as it can be sent, and a note for each thing that
// was left out. It never fails: what a pod's resolv.conf holds must not cost a
// guest its start. Applied again, it changes nothing.
//
// Left out are: what is not IPv4, name servers on the pod's loopback, names
// that DNS could not carry, addresses among names, what is there twice, and
// what is more than a message could hold.
// Search domains are written in lower case without the dot at the end.
func (l Lease) Normalize() (Lease, []string) {
	var n notes
	l.MAC = slices.Clone(l.MAC)
	l.Router = l.Router.Unmap()
	l.Server = l.Server.Unmap()
	l.Address = unmapPrefix(l.Address)
	l.Routes = n.routes(l.Routes)
	l.DNS = n.addrs("DNS server", l.DNS)
	l.NTP = n.addrs("NTP server", l.NTP)
	l.Search = n.search(l.Search)
	l.Hostname = n.hostname(l.Hostname)
	l.Options = n.options(l.Options)
	if l.Router.IsValid() && len(l.Routes) > 0 && !slices.ContainsFunc(l.Routes, isDefault) {
		n = append(n, fmt.Sprintf("router %v: clients that use the classless static routes ignore it, and those hold no default route", l.Router))
	}
	return l, n
}

// notes collects what was left out.
type notes []string

func (n *notes) add(why, format string, args ...any) {
	*n = append(*n, fmt.Sprintf(format, args...)+" left out: "+why)
}

func (n *notes) routes(routes []Route) []Route {
	var out []Route
	for _, r := range routes {
		route := Route{Destination: unmapPrefix(r.Destination).Masked(), Gateway: r.Gateway.Unmap()}
		if route.Gateway.Is4() && route.Gateway.IsUnspecified() {
			route.Gateway = netip.Addr{} // how it is written on the wire
		}
		switch {
		case !route.Destination.IsValid():
			n.add("it has no destination", "%v", r)
		case !route.Destination.Addr().Is4() || route.Gateway.IsValid() && !route.Gateway.Is4():
			n.add("it is not IPv4", "%v", r)
		case slices.Contains(out, route):
			n.add("it is there twice", "%v", r)
		default:
			out = append(out, route)
		}
	}
	return out
}

func (n *notes) addrs(what string, addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for i, a := range addrs {
		if len(out) == maxList {
			n.add(fmt.Sprintf("there are %d already", maxList), "%d more %ss", len(addrs)-i, what)
			break
		}
		a = a.Unmap()
		switch {
		case !a.Is4():
			n.add("it is not an IPv4 address", "%s %v", what, a.WithZone(""))
		case a.IsLoopback():
			n.add("it is the pod's loopback, which the guest cannot reach", "%s %v", what, a)
		case !isHost(a):
			n.add("it is not a host's address", "%s %v", what, a)
		case slices.Contains(out, a):
			n.add("it is there twice", "%s %v", what, a)
		default:
			out = append(out, a)
		}
	}
	return out
}

func (n *notes) search(domains []string) []string {
	var out []string
	for i, raw := range domains {
		if len(out) == maxList {
			n.add(fmt.Sprintf("there are %d already", maxList), "%d more search domains", len(domains)-i)
			break
		}
		d := strings.ToLower(strings.TrimRight(raw, "."))
		if why := nameFault(d); why != "" {
			n.add(why, "search domain %q", clip(raw))
			continue
		}
		if slices.Contains(out, d) {
			n.add("it is there twice", "search domain %q", d)
			continue
		}
		out = append(out, d)
	}
	return out
}

func (n *notes) hostname(name string) string {
	if name == "" {
		return ""
	}
	trimmed := strings.TrimRight(name, ".")
	if why := nameFault(trimmed); why != "" {
		n.add(why, "hostname %q", clip(name))
		return ""
	}
	return trimmed
}

// options keeps the last of each code: a later one overrides.
func (n *notes) options(options []Option) []Option {
	var out []Option
	for i, o := range options {
		later := slices.ContainsFunc(options[i+1:], func(p Option) bool { return p.Code == o.Code })
		if later {
			n.add("a later one overrides it", "option %d = %x", o.Code, o.Value)
			continue
		}
		out = append(out, o)
	}
	return out
}

// nameFault says why s is no name that DNS can carry. Empty: it is one.
// Underscores are common in names of services and taken.
func nameFault(s string) string {
	switch {
	case s == "":
		return "it is empty or the root"
	case len(s) > maxName:
		return fmt.Sprintf("it is longer than %d bytes", maxName)
	case net.ParseIP(s) != nil:
		return "it is an IP address"
	}
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "":
			return "it has an empty label"
		case len(label) > maxLabel:
			return fmt.Sprintf("it has a label longer than %d bytes", maxLabel)
		case strings.ContainsFunc(label, notInName):
			return "it holds a character other than letters, digits, '-' and '_'"
		}
	}
	return ""
}

func notInName(r rune) bool {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_':
		return false
	}
	return true
}

// clip keeps a note readable whatever its subject is.
func clip(s string) string {
	const limit = 80
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

func isDefault(r Route) bool { return r.Destination.Bits() == 0 }

func unmapPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p
}
