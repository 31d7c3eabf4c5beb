// Package normalize puts in order what a pod's resolv.conf, a CNI plugin or a user
// may hold, so that it can be told to a guest, and notes what was left out. It
// never fails: what can't be told must not cost a guest its start. [Checks] are for what
// only its author can put right.
package normalize

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// MaxList is how many addresses or domains of a kind are sent: far more than a
// resolver uses.
const MaxList = 32

// Limits of names (RFC 1035 §2.3.4): a name has at most 255 bytes on the wire,
// which are two more than its text.
const (
	maxLabel = 63
	maxName  = 253
)

// Notes say what was left out, and why.
type Notes []string

// Add notes that something was left out.
func (n *Notes) Add(why, format string, args ...any) {
	*n = append(*n, fmt.Sprintf(format, args...)+" left out: "+why)
}

// List returns what of a list can be told, each once and at most so many. read puts an
// entry in order, or says why it can't be told. format is what it is called in a note.
func List[T comparable](n *Notes, format string, most int, list []T, read func(T) (T, string)) []T {
	var out []T
	for i, v := range list {
		if len(out) == most {
			what, _, _ := strings.Cut(format, " %")
			n.Add(fmt.Sprintf("there are %d already", most), "%d more %ss", len(list)-i, what)
			break
		}
		v, why := read(v)
		if why == "" && slices.Contains(out, v) {
			why = "it is listed twice"
		}
		if why == "" {
			out = append(out, v)
		} else {
			n.Add(why, format, v)
		}
	}
	return out
}

// Servers returns the addresses of servers of a kind that a guest can be told, each
// once: those of the other family are not, nor what no host can have. IPv4 addresses in
// IPv6's are taken out of them first. format is as List has it.
func (n *Notes) Servers(format string, addrs []netip.Addr, ipv6 bool) []netip.Addr {
	return List(n, format, MaxList, addrs, func(a netip.Addr) (netip.Addr, string) {
		a = a.Unmap().WithZone("") // names an interface of the pod
		switch {
		case ipv6 && !a.Is6():
			return a, "it is not an IPv6 address"
		case !ipv6 && !a.Is4():
			return a, "it is not an IPv4 address"
		case a.IsLoopback():
			return a, "it is the pod's loopback, which the guest cannot reach"
		case !IsHost(a):
			return a, "it is not a host's address"
		}
		return a, ""
	})
}

// Wire are the addresses one after the other, as options have them.
func Wire(addrs []netip.Addr) (out []byte) {
	for _, a := range addrs {
		out = append(out, a.AsSlice()...)
	}
	return out
}

// IsHost reports whether a host can have the address. As the Linux kernel this takes
// 240.0.0.0/4, which some clouds give to pods, and the rest of 0.0.0.0/8.
func IsHost(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// Search returns domains of a search list as DNS can carry them: in lower case,
// without the dot at the end, each once.
func (n *Notes) Search(domains []string) []string {
	return List(n, "search domain %q", MaxList, domains, func(raw string) (string, string) {
		d := strings.ToLower(strings.TrimRight(raw, "."))
		if why := nameFault(d); why != "" {
			return clip(raw), why
		}
		return d, ""
	})
}

// Hostname returns the name of a host without the dot at the end. Empty: it is
// no name.
func (n *Notes) Hostname(name string) string {
	if name == "" {
		return ""
	}
	if why := HostnameFault(name); why != "" {
		n.Add(why, "hostname %q", clip(name))
		return ""
	}
	return strings.TrimRight(name, ".")
}

// HostnameFault says why a name is no host's (RFC 1123 §2.1): a guest hands it to
// hostname(1) or the like, which takes a dash at its beginning for an option. Empty: it is
// one. A dot at the end is no part of it.
func HostnameFault(name string) string {
	name = strings.TrimRight(name, ".")
	if why := nameFault(name); why != "" {
		return why
	}
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-"):
			return "it has a '-' at the beginning or end of a label"
		case strings.Contains(label, "_"):
			return "it holds a '_', which is for names of services only"
		}
	}
	return ""
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
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

// clip keeps a note readable whatever its subject is.
func clip(s string) string {
	const limit = 80
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
