package prepare

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// state is what a network namespace has of the things that plans are about.
type state struct {
	links      []nl.Link
	interfaces map[int]discover.Interface // by index
	routes     []discover.Route           // all, in the kernel's order
	tables     map[tableID]tableNow       // nftables' tables of ours
	knobs      map[string]string          // br_netfilter's switches that we may change: name to value
	stuck      []string                   // those that are on and that we may not change
	filtered   map[int]bool               // whether a tap has its checksum filter, by index
	unfiltered error                      // why none can be had
}

// readState reads the namespace of the calling thread.
func readState() (state, error) {
	conn, err := nl.Open()
	if err != nil {
		return state{}, err
	}
	defer conn.Close()
	s := state{interfaces: map[int]discover.Interface{}}
	if s.links, err = conn.Links(); err != nil {
		return state{}, err
	}
	interfaces, routes, err := discover.ReadAll()
	if err != nil {
		return state{}, err
	}
	s.routes = routes
	for _, in := range interfaces {
		s.interfaces[in.Index] = in
	}
	if s.tables, err = readTables(); err != nil {
		return state{}, err
	}
	if s.filtered, err = readChecksumFilters(conn, s.links); err != nil {
		return state{}, err
	}
	s.unfiltered = canFilter()
	s.knobs, s.stuck, err = readKnobs()
	return s, err
}

// original is the state that p was made for: the pod as the CNI left it.
func (p Plan) original() state {
	l := nl.Link{Index: p.Interface.Index, Name: p.Interface.Name, Kind: p.Interface.Kind, MAC: p.Interface.MAC, MTU: p.Interface.MTU, AddrGenMode: p.Interface.AddrGenMode}
	if p.Interface.Up {
		l.Flags = flagUp
	}
	links := []nl.Link{l}
	for _, r := range sharedRoutes([]Plan{p}) {
		for _, index := range r.Links { // whose names are not told
			links = append(links, nl.Link{Index: index, Name: fmt.Sprintf("if%d", index), Flags: flagUp})
		}
	}
	return state{
		links: links, interfaces: map[int]discover.Interface{l.Index: p.Interface},
		routes: slices.Concat(p.Interface.Routes, p.Interface.Dependents),
	}
}

// index returns the index of the link of that name; 0: there is none.
func (s state) index(name string) int {
	if l := s.link(name); l != nil {
		return l.Index
	}
	return 0
}

// link returns the link of that name, or nil.
func (s state) link(name string) *nl.Link {
	for i := range s.links {
		if s.links[i].Name == name {
			return &s.links[i]
		}
	}
	return nil
}

// named returns the link that has that name, perhaps beside its own, or nil.
func (s state) named(name string) *nl.Link {
	for i := range s.links {
		if s.links[i].Name == name || slices.Contains(s.links[i].Other, name) {
			return &s.links[i]
		}
	}
	return nil
}

// linkByIndex returns the link of that index, or nil.
func (s state) linkByIndex(index int) *nl.Link {
	for i := range s.links {
		if s.links[i].Index == index {
			return &s.links[i]
		}
	}
	return nil
}

// master returns the name of the bridge that l is a port of, or "".
func (s state) master(l nl.Link) string {
	if m := s.linkByIndex(l.Master); l.Master != 0 && m != nil {
		return m.Name
	}
	return ""
}

// leastMTU is the least of a bridge's ports; 0: it has none.
func (s state) leastMTU(bridge int) (least int) {
	for _, l := range s.links {
		if l.Master == bridge && (least == 0 || l.MTU < least) {
			least = l.MTU
		}
	}
	return least
}

// knobNames are the per-namespace switches by which br_netfilter shows bridged
// frames to the pod's iptables (Documentation/networking/bridge.rst).
var knobNames = []string{
	"net.bridge.bridge-nf-call-arptables",
	"net.bridge.bridge-nf-call-ip6tables",
	"net.bridge.bridge-nf-call-iptables",
}

func knobPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// readKnobs reads the switches. /proc/sys/net shows the namespace of the
// thread that opens it.
func readKnobs() (knobs map[string]string, stuck []string, err error) {
	knobs = map[string]string{}
	for _, name := range knobNames {
		b, err := os.ReadFile(knobPath(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read sysctl %s: %w", name, err)
		}
		switch value := strings.TrimSpace(string(b)); {
		case unix.Faccessat(unix.AT_FDCWD, knobPath(name), unix.W_OK, unix.AT_EACCESS) == nil:
			knobs[name] = value
		case value != "0":
			stuck = append(stuck, name)
		}
	}
	return knobs, stuck, nil
}
