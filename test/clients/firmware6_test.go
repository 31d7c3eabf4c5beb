package clients

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// ipxe6 is iPXE that has taken its IPv6 lease and printed what it made of it.
type ipxe6 struct{ *ipxe }

const ipxeScript6 = `#!ipxe
ifconf --configurator ipv6 net0
route
echo dns ${dns6}
echo search ${dnssl}
echo that is all
shell
`

func inIPXE6(t *testing.T, _ client, at *seat) running {
	t.Helper()
	return ipxe6{runIPXE(t, at, ipxeScript6)}
}

// Of its link-local address there is nothing to tell.
var ipxeRoute6 = regexp.MustCompile(`net0: (fd[\da-f:]+/\d+)(?: gw ([\da-f:]+))?`)

func (i ipxe6) state(t *testing.T) state {
	t.Helper()
	var s state
	for line := range strings.Lines(i.told(t)) {
		words := strings.Fields(line)
		if m := ipxeRoute6.FindStringSubmatch(line); m != nil {
			s.Address = m[1]
			if m[2] != "" {
				s.Routes = append(s.Routes, toDefault+m[2])
			}
		} else if len(words) > 1 {
			s.say(t, words[0], words[1:]...)
		}
	}
	return s
}

// uefiNIC6 is a NIC of which IPv6 is judged.
type uefiNIC6 struct{ uefiNIC }

func (u uefiNIC6) state(t *testing.T) state {
	t.Helper()
	var s state
	var section string
	for line := range strings.Lines(u.run(t, "ifconfig6 -l "+u.name)) {
		line = strings.TrimSpace(line)
		if name, value, ok := strings.Cut(line, " : "); ok || strings.HasSuffix(line, " :") {
			section = strings.TrimSpace(strings.TrimSuffix(name, ":"))
			line = strings.TrimSpace(value)
		}
		if line == "" || strings.HasPrefix(line, "-") {
			continue
		}
		switch section {
		case "host addr":
			if a := netip.MustParsePrefix(line); !a.Addr().IsLinkLocalUnicast() {
				s.Address = a.String()
			}
		case "dns server":
			s.DNS = append(s.DNS, netip.MustParseAddr(line).String())
		case "route table":
			s.addRoute6(line)
		}
	}
	slices.Sort(s.Routes)
	return s
}

// addRoute6 adds a route as OVMF's shell prints it, if it is not each link's own.
func (s *state) addRoute6(line string) {
	to, via, _ := strings.Cut(line, " >> ")
	destination, gateway := netip.MustParsePrefix(to), netip.MustParseAddr(via)
	switch {
	case destination.Addr().IsLinkLocalUnicast():
	case destination.Bits() == 0:
		s.Routes = append(s.Routes, toDefault+gateway.String())
	case gateway.IsUnspecified():
		s.Routes = append(s.Routes, destination.String())
	default:
		s.Routes = append(s.Routes, destination.String()+" via "+gateway.String())
	}
}
