package engine

import (
	"cmp"
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
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// State is what a network namespace has of the things that wirings are about.
type State struct {
	Links      []nl.Link
	Interfaces map[int]discover.Interface // by index; nil: not read
	Routes     []discover.Route           // all, in the kernel's order
	Tables     map[nft.ID]nft.Present     // nftables' tables of ours; nil: not read
	Sysctls    map[string]string          // those that we may change: name to value
	Stuck      []string                   // those that are on, and that we may not change
	Filtered   map[int]bool               // whether a tap has its checksum filter, by index
	Unfiltered error                      // why none can be had
}

// ReadState reads the network namespace of the calling thread; sysctls are those
// that are of interest.
func ReadState(sysctls []string) (*State, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	links, err := conn.Links()
	if err != nil {
		return nil, err
	}
	interfaces, routes, err := discover.ReadAll()
	if err != nil {
		return nil, err
	}
	s := &State{Links: links, Interfaces: map[int]discover.Interface{}, Routes: routes}
	for _, in := range interfaces {
		s.Interfaces[in.Index] = in
	}
	if s.Tables, err = nft.Read(); err != nil {
		return nil, Explain(err)
	}
	if err := s.ReadFilters(conn); err != nil {
		return nil, err
	}
	s.Unfiltered = canFilter()
	files := OpenSysctls(sysctls)
	defer files.Close()
	s.Sysctls, s.Stuck = files.Read(), files.Stuck
	return s, nil
}

// ReadLinks reads the links alone, which takes no privileges and little time.
func ReadLinks() (*State, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	links, err := conn.Links()
	return &State{Links: links}, err
}

// Original is the state in which a wiring of in is planned: the interface as the CNI
// left it, alone.
func Original(in discover.Interface) *State {
	l := nl.Link{Index: in.Index, Name: in.Name, Kind: in.Kind, MAC: in.MAC, MTU: in.MTU, AddrGenMode: in.AddrGenMode}
	if in.Up {
		l.Flags = unix.IFF_UP
	}
	return &State{Links: []nl.Link{l}, Interfaces: map[int]discover.Interface{in.Index: in}, Routes: in.Routes}
}

// find returns the first link of which is says so, or nil.
func (s *State) find(is func(nl.Link) bool) *nl.Link {
	if i := slices.IndexFunc(s.Links, is); i >= 0 {
		return &s.Links[i]
	}
	return nil
}

// Link returns the link of that name, or nil.
func (s *State) Link(name string) *nl.Link {
	return s.find(func(l nl.Link) bool { return l.Name == name })
}

// Named returns the link that has that name, perhaps beside its own, or nil.
func (s *State) Named(name string) *nl.Link {
	return s.find(func(l nl.Link) bool { return l.Name == name || slices.Contains(l.Other, name) })
}

// ByIndex returns the link of that index, or nil.
func (s *State) ByIndex(index int) *nl.Link {
	return s.find(func(l nl.Link) bool { return l.Index == index })
}

// Index returns the index of the link of that name; 0: there is none.
func (s *State) Index(name string) int {
	if l := s.Link(name); l != nil {
		return l.Index
	}
	return 0
}

// Master returns the name of what l is a port of, or "".
func (s *State) Master(l nl.Link) string {
	if m := s.ByIndex(l.Master); l.Master != 0 && m != nil {
		return m.Name
	}
	return ""
}

// InUse tells whether somebody has a tap open. One that is missing is not in use.
func (s *State) InUse(tap string) bool {
	l := s.Link(tap)
	return l != nil && l.InUse()
}

// Kind names the kind of a link for people.
func Kind(l nl.Link) string {
	switch {
	case l.Tun != nil && l.Tun.Tap:
		return "a tap"
	case l.Kind == "":
		return "a physical link"
	}
	return "a link of kind " + l.Kind
}

// Describe names a link for people.
func Describe(l nl.Link) string {
	return fmt.Sprintf("%s (index %d, MAC %s)", Kind(l), l.Index, cmp.Or(l.MAC.String(), "none"))
}

func sysctlPath(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}

// Sysctls are open files of sysctls that this process may change. An open file of
// /proc/sys/net stays with the network namespace in which it was opened.
type Sysctls struct {
	files map[string]int
	Stuck []string // those that were not 0, and that this process may not change
}

// OpenSysctls opens those of the network namespace of the calling thread that the node
// has. Close them.
func OpenSysctls(names []string) Sysctls {
	k := Sysctls{files: map[string]int{}}
	for _, name := range names {
		file, err := unix.Open(sysctlPath(name), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			k.files[name] = file
			continue
		}
		value, err := os.ReadFile(sysctlPath(name))
		if !errors.Is(err, fs.ErrNotExist) && strings.TrimSpace(string(value)) != "0" {
			k.Stuck = append(k.Stuck, name)
		}
	}
	return k
}

// Read returns the values by name. One that can't be read any more, since its module is
// gone, has none.
func (k Sysctls) Read() map[string]string {
	values := map[string]string{}
	for name, file := range k.files {
		var b [16]byte
		if n, _ := unix.Pread(file, b[:], 0); n > 0 {
			values[name] = strings.TrimSpace(string(b[:n]))
		}
	}
	return values
}

// Close closes the files.
func (k Sysctls) Close() {
	for _, file := range k.files {
		_ = unix.Close(file)
	}
}

// SetSysctl writes a sysctl.
type SetSysctl struct {
	Name     string // as sysctl(8) writes it
	From, To string
}

func (o SetSysctl) String() string { return "sysctl -w " + o.Name + "=" + o.To }

// Inverse writes what was there.
func (o SetSysctl) Inverse() Op { return SetSysctl{o.Name, o.To, o.From} }

// Do writes it.
func (o SetSysctl) Do(*Kernel) error { return os.WriteFile(sysctlPath(o.Name), []byte(o.To), 0) }
