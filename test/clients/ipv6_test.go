package clients

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sandbox6 is a client of IPv6 at work in a guest.
type sandbox6 struct{ *sandbox }

func inSandbox6(t *testing.T, c client, at *seat) running {
	t.Helper()
	return sandbox6{startIn(t, newGuest(t, at.pod), c.name, "start6")}
}

func (c sandbox6) state(t *testing.T) state {
	t.Helper()
	s := c.kernelState(t)
	c.told(t, &s)
	s.Hostname = "" // it has none by IPv6
	s.DNS, s.Search = unique(s.DNS), unique(s.Search)
	return s
}

// unique is the list without what was there before: clients put together what
// they were told by advertisements and by DHCPv6.
func unique(list []string) (out []string) {
	for _, s := range list {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (c sandbox6) kernelState(t *testing.T) state {
	t.Helper()
	return kernelState6(t, c)
}

// onlyKernel is a guest in which there is no client.
type onlyKernel struct{ guest sandbox6 }

func inKernel(t *testing.T, _ client, at *seat) running {
	t.Helper()
	return onlyKernel{sandbox6{&sandbox{guest: newGuest(t, at.pod)}}}
}

func (c onlyKernel) state(t *testing.T) state {
	t.Helper()
	return c.guest.kernelState(t)
}

// It cannot be asked.
func (onlyKernel) renew(*testing.T) {}

// kernelState6 is what the kernel of a guest has of IPv6.
func kernelState6(t *testing.T, guest networked) state {
	t.Helper()
	nic := guest.nic()
	run := func(command ...string) string { return guest.do(t, command...) }
	var s state
	var links []struct {
		Addresses []struct {
			Local     string `json:"local"`
			Length    int    `json:"prefixlen"`
			Tentative bool   `json:"tentative"`
			Failed    bool   `json:"dadfailed"`
		} `json:"addr_info"`
	}
	readJSON(t, []byte(run("ip", "-json", "-6", "address", "show", "dev", nic, "scope", "global")), &links)
	var addresses []string
	for _, l := range links {
		for _, a := range l.Addresses {
			switch {
			case a.Local == "": // of another scope
			case a.Tentative || a.Failed:
				addresses = append(addresses, a.Local+" (not yet)")
			default:
				addresses = append(addresses, fmt.Sprintf("%s/%d", a.Local, a.Length))
			}
		}
	}
	s.Address = strings.Join(addresses, ", ")
	var routes []struct {
		route
		Nexthops json.RawMessage `json:"nexthops"`
	}
	readJSON(t, []byte(run("ip", "-json", "-6", "route", "show", "dev", nic)), &routes)
	var err error
	if s.MTU, err = strconv.Atoi(strings.TrimSpace(run("cat", "/proc/sys/net/ipv6/conf/"+nic+"/mtu"))); err != nil {
		t.Fatal(err)
	}
	for _, r := range routes { // some put the router's MTU onto routes
		for _, metric := range r.Metrics {
			if mtu := metric["mtu"]; r.Destination == "default" && mtu != 0 {
				s.MTU = min(s.MTU, mtu)
			}
		}
	}
	for _, r := range routes {
		own := r.Gateway == "" && (r.Destination == "fe80::/64" || strings.HasPrefix(r.Destination, "ff") || strings.HasPrefix(s.Address, r.Destination+"/"))
		if !own {
			s.Routes = append(s.Routes, strings.TrimSuffix(r.words(), fmt.Sprintf(" mtu %d", s.MTU))+string(r.Nexthops))
		}
	}
	slices.Sort(s.Routes)
	s.Routes = slices.Compact(s.Routes)
	return s
}
