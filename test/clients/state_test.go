package clients

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// state is what a client made of a lease: what the kernel has, and what it
// told the programs of its guest.
type state struct {
	Address  string   // with its prefix length
	Routes   []string // as words of ip-route(8), sorted; without the address's own network
	MTU      int      // of the interface
	DNS      []string
	Search   []string
	Hostname string
}

// with is a copy that changes do not reach.
func (s state) with(change func(*state)) state {
	s.Routes, s.DNS, s.Search = slices.Clone(s.Routes), slices.Clone(s.DNS), slices.Clone(s.Search)
	change(&s)
	return s
}

// link and route are of ip -json.
type (
	link struct {
		MTU       int `json:"mtu"`
		Addresses []struct {
			Local  string `json:"local"`
			Length int    `json:"prefixlen"`
		} `json:"addr_info"`
	}
	route struct {
		Destination string           `json:"dst"`
		Gateway     string           `json:"gateway"`
		Metrics     []map[string]int `json:"metrics"`
	}
)

// words are the route's, without what is each client's own business: source,
// metric, protocol, scope.
func (r route) words() string {
	words := r.Destination
	if r.Gateway != "" {
		words += " via " + r.Gateway
	}
	for _, metric := range r.Metrics {
		if mtu := metric["mtu"]; mtu != 0 {
			words += fmt.Sprintf(" mtu %d", mtu)
		}
	}
	return words
}

// state reads what there is now.
func (c *running) state(t *testing.T) state {
	t.Helper()
	var s state
	var links []link
	readJSON(t, c.guest.NS.Run(t, "ip", "-json", "-4", "address", "show", "dev", "eth0"), &links)
	var own netip.Prefix
	for _, link := range links { // none if there is no address
		for _, a := range link.Addresses {
			s.Address += fmt.Sprintf("%s/%d", a.Local, a.Length)
			own = netip.MustParsePrefix(s.Address).Masked()
		}
	}
	readJSON(t, c.guest.NS.Run(t, "ip", "-json", "link", "show", "dev", "eth0"), &links)
	s.MTU = links[0].MTU

	var routes []route
	readJSON(t, c.guest.NS.Run(t, "ip", "-json", "-4", "route", "show"), &routes)
	for _, r := range routes {
		if r.Gateway != "" || r.Destination != own.String() {
			s.Routes = append(s.Routes, r.words())
		}
	}
	slices.Sort(s.Routes)
	s.Routes = slices.Compact(s.Routes)
	c.told(t, &s)
	return s
}

// told reads what the client told programs: a line each, a word first.
func (c *running) told(t *testing.T, s *state) {
	t.Helper()
	for line := range strings.Lines(c.do(t, "state")) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		switch words[0] {
		case "dns":
			s.DNS = append(s.DNS, words[1:]...)
		case "search":
			for _, domain := range words[1:] {
				s.Search = append(s.Search, strings.TrimSuffix(domain, "."))
			}
			s.Search = slices.Compact(s.Search) // the domain, and the list that begins with it
		case "hostname":
			s.Hostname = strings.Join(words[1:], " ")
		}
	}
}

func readJSON(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// await waits until the state is as wanted. There is no event for all of it
// that all clients have in common.
func (c *running) await(t *testing.T, want state) state {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := c.state(t)
		if reflect.DeepEqual(got, want) {
			return got
		}
		if time.Now().After(deadline) {
			t.Error(explain(got, want))
			return got
		}
		time.Sleep(50 * time.Millisecond)
	}
}
