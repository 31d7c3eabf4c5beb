package clients

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
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
			Family string `json:"family"`
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

// kernelState is what the kernel of a guest has of IPv4, as ip -json prints a NIC's
// addresses, and all routes.
func kernelState(t *testing.T, nic, table []byte) state {
	t.Helper()
	var s state
	var links []link
	readJSON(t, nic, &links)
	s.MTU = links[0].MTU
	var own netip.Prefix
	for _, a := range links[0].Addresses {
		if a.Family == "inet" {
			s.Address += fmt.Sprintf("%s/%d", a.Local, a.Length)
			own = netip.MustParsePrefix(s.Address).Masked()
		}
	}

	var routes []route
	readJSON(t, table, &routes)
	for _, r := range routes {
		if r.Gateway != "" || r.Destination != own.String() {
			s.Routes = append(s.Routes, r.words())
		}
	}
	slices.Sort(s.Routes)
	s.Routes = slices.Compact(s.Routes)
	return s
}

// say adds what a client told programs: a word that says what it is, and it.
func (s *state) say(t *testing.T, what string, words ...string) {
	t.Helper()
	switch what {
	case "dns":
		s.DNS = append(s.DNS, words...)
	case "search":
		for _, domain := range words {
			s.Search = append(s.Search, strings.TrimSuffix(domain, "."))
		}
		s.Search = slices.Compact(s.Search) // the domain, and the list that begins with it
	case "hostname":
		s.Hostname = strings.Join(words, " ")
	case "mtu":
		mtu, err := strconv.Atoi(words[0])
		if err != nil {
			t.Fatal(err)
		}
		s.MTU = mtu
	}
}

func readJSON(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// await waits until the state is as wanted. There is no event for all of it that
// all clients have in common, so it is read again and again, but for no more than a
// third of the time: that takes many processes.
func await(t *testing.T, guest running, want state) state {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		start := time.Now()
		got := guest.state(t)
		if reflect.DeepEqual(got, want) {
			return got
		}
		if time.Now().After(deadline) {
			t.Error(explain(got, want))
			return got
		}
		time.Sleep(max(2*time.Since(start), 100*time.Millisecond))
	}
}
