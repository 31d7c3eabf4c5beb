package discover

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"unicode/utf8"
)

// maxResolvConf bounds what is read of a resolv.conf.
const maxResolvConf = 64 << 10

// Resolver is what resolv.conf(5) says.
type Resolver struct {
	Servers []netip.Addr `json:"servers"`
	Search  []string     `json:"search"` // as written; whoever sends it checks it
	// Options are how a resolver asks, such as ndots:5, which DHCP has no word for.
	Options []string `json:"options,omitempty"`
	// Unknown says why there is nothing; empty: resolv.conf was read.
	Unknown string `json:"unknown,omitempty"`
	// LeftOut is what was not understood, one text an item. A VM starts without it.
	LeftOut []string `json:"leftOut,omitempty"`
}

// ReadResolvConf reads the file at path, or /etc/resolv.conf if path is empty. It
// must be a regular file, or /dev/null for none.
func ReadResolvConf(path string) (Resolver, error) {
	switch path {
	case "":
		path = "/etc/resolv.conf"
	case os.DevNull:
		return Resolver{}, nil
	}
	b, err := readRegular(path, maxResolvConf)
	if err != nil {
		return Resolver{}, fmt.Errorf("read %s: %w", path, cause(err))
	}
	return parseResolvConf(b), nil
}

// parseResolvConf parses resolv.conf(5): the nameserver lines in order, and the
// last of the domain and search lines, as the resolver library does. Whatever
// it cannot use is in LeftOut.
func parseResolvConf(b []byte) Resolver {
	var r Resolver
	leaveOut := func(format string, args ...any) {
		r.LeftOut = append(r.LeftOut, fmt.Sprintf(format, args...))
	}
	if len(b) > maxResolvConf {
		b = b[:maxResolvConf]
		leaveOut("everything after the first %d bytes", maxResolvConf)
	}
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	lines.Buffer(nil, maxResolvConf+1)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if !utf8.ValidString(line) || strings.ContainsRune(line, 0) {
			leaveOut("line %d: not text", n)
			continue
		}
		if i := strings.IndexAny(line, "#;"); i >= 0 {
			line = line[:i]
		}
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch key, values := fields[0], fields[1:]; key {
		case "nameserver":
			if len(values) == 0 {
				leaveOut("line %d: nameserver without an address", n)
				continue
			}
			a, err := netip.ParseAddr(values[0])
			if err != nil {
				leaveOut("line %d: nameserver %q is not an IP address", n, clip(values[0]))
				continue
			}
			if a.IsLoopback() || a.IsUnspecified() {
				leaveOut("line %d: nameserver %s means the host itself, where the VM has no nameserver", n, a)
				continue
			}
			r.Servers = append(r.Servers, a)
		case "search":
			r.Search = values
		case "domain":
			r.Search = values[:min(1, len(values))]
		case "options": // each line adds to them
			r.Options = append(r.Options, values...)
		case "sortlist":
			r.Options = append(r.Options, strings.Join(fields, " "))
		default:
			leaveOut("line %d: unknown keyword %q", n, clip(key))
		}
	}
	return r
}

// clip shortens what a file says for a message.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
