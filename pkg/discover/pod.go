// Package discover reads what the CNI gave this pod: interfaces, addresses,
// routes, neighbours, DNS. It changes nothing.
//
// It reads the network namespace of the calling thread. A caller that wants
// another one enters it first and stays locked to its thread, as
// github.com/containernetworking/plugins/pkg/ns does.
package discover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Pod is the network of a pod as the CNI left it.
type Pod struct {
	Hostname   string      `json:"hostname"` // empty: not known
	DNS        Resolver    `json:"dns"`
	Interfaces []Interface `json:"interfaces"` // as asked for, the primary one first
}

// Options say what to look for. The zero value is a pod's usual one.
type Options struct {
	// Interfaces are the names of the pod interfaces, the primary one
	// first. None: the interface of the default route, else the only one that
	// is up, else eth0.
	Interfaces []string
	// Recorded are pod interfaces that were rewired before, as they were then, which
	// the kernel no longer knows. They are taken instead of the interfaces of their
	// names; their names are Interfaces if there are none.
	Recorded []Interface
	// ResolvConf is the path of the pod's resolv.conf; empty: /etc/resolv.conf, if
	// this process is in the pod's network namespace itself. Where it is not, and
	// the calling thread alone is, that file and the hostname would be the node's:
	// they are then those of a process of the pod, or not known.
	ResolvConf string
	// NoIdentity leaves out the hostname, and DNS if ResolvConf is empty.
	NoIdentity bool
	// Process is the number of a process of the pod; 0: one is looked for. It
	// takes CAP_SYS_PTRACE to see another user's, CAP_SYS_ADMIN for the hostname.
	Process int
	// Log gets what was waited for and what was left out; nil is silent.
	Log *slog.Logger
}

// ReadPod reads the pod's network. If the primary interface is not there yet,
// is down or has no address, it waits for the CNI until ctx ends; the error is then
// an [IncompleteError]. Further interfaces may be without an address (a CNI without
// IPAM), and so may the primary one if it was named and the pod has its address on
// another interface, or a router advertises itself.
func ReadPod(ctx context.Context, o Options) (Pod, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if len(o.Interfaces) == 0 {
		for _, in := range o.Recorded {
			o.Interfaces = append(o.Interfaces, in.Name)
		}
	}
	interfaces, err := waitForInterfaces(ctx, o)
	if err != nil {
		return Pod{}, err
	}
	for _, in := range interfaces {
		in.logRouterMade(o)
	}
	id, err := readIdentity(ctx, o)
	if err != nil {
		return Pod{}, err
	}
	for _, what := range id.dns.LeftOut {
		o.Log.Warn("ignored a part of resolv.conf", "what", what)
	}
	if len(id.dns.Options) > 0 {
		o.Log.Debug("the VM does not get the options of resolv.conf: DHCP can't express them", "options", id.dns.Options)
	}
	return Pod{Hostname: id.hostname, DNS: id.dns, Interfaces: interfaces}, nil
}

// logRouterMade logs that addresses of an interface do not count.
func (i Interface) logRouterMade(o Options) {
	for _, a := range i.Addresses {
		if a.FromRouter() && !i.Addressed() && !isRecorded(i, o) {
			o.Log.Info("the CNI gave no address, only a router advertisement did: the network is treated as one without IPAM",
				"interface", i.Name, "address", a.Prefix)
		}
	}
}

// ReadInterfaces reads all interfaces there are now, waiting for nothing.
func ReadInterfaces() ([]Interface, error) {
	all, _, err := ReadAll()
	return all, err
}

// ReadAll is ReadInterfaces beside the routes of all tables, by whatever link or none, in
// the kernel's order.
func ReadAll() ([]Interface, []Route, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	k, err := read(conn)
	if err != nil {
		return nil, nil, err
	}
	all := make([]Interface, len(k.links))
	for i, l := range k.links {
		all[i] = k.newInterface(l)
		all[i].Elsewhere = k.elsewhere(l.Index)
	}
	return all, k.routes, nil
}

// ReadAssigned reads the addresses and the permanent neighbors that there are, by the
// indexes of their links, and nothing else of these. dump calls a function with each of
// the kernel's messages that answer a request (RTM_GETADDR, RTM_GETNEIGH).
func ReadAssigned(dump func(request int, each func(message []byte)) error) (map[int]Interface, error) {
	k := newKernel()
	err := k.readAssigned(dump)
	all := map[int]Interface{}
	for index, addresses := range k.addresses {
		all[index] = Interface{Addresses: addresses, Neighbors: k.neighbors[index]}
	}
	return all, err
}

// kernel is one reading of a network namespace. Addresses and neighbours are by the
// index of their link.
type kernel struct {
	links     []nl.Link
	addresses map[int][]Address
	routes    []Route
	neighbors map[int][]Neighbor // permanent ones
	proxies   map[int][]Neighbor
	rules     []rule
}

func newKernel() kernel {
	return kernel{addresses: map[int][]Address{}, neighbors: map[int][]Neighbor{}, proxies: map[int][]Neighbor{}}
}

// readAssigned reads addresses and neighbours.
func (k *kernel) readAssigned(dump func(int, func([]byte)) error) error {
	return errors.Join(
		dump(unix.RTM_GETADDR, func(m []byte) {
			if link, a := newAddress(m); a.Prefix.IsValid() {
				k.addresses[link] = append(k.addresses[link], a)
			}
		}),
		dump(unix.RTM_GETNEIGH, func(m []byte) {
			if link, state, n := newNeighbor(m); n.Address.IsValid() && state&unix.NUD_PERMANENT != 0 {
				k.neighbors[link] = append(k.neighbors[link], n)
			}
		}))
}

func read(conn *nl.Conn) (k kernel, err error) {
	k = newKernel()
	if k.links, err = conn.Links(); err != nil {
		return k, err
	}
	err = errors.Join(
		k.readAssigned(conn.Messages),
		conn.Messages(unix.RTM_GETROUTE, func(m []byte) {
			if r, ok := newRoute(m); ok {
				k.routes = append(k.routes, r)
			}
		}),
		conn.Proxies(func(m []byte) {
			if link, _, n := newNeighbor(m); n.Address.IsValid() {
				k.proxies[link] = append(k.proxies[link], n)
			}
		}),
		conn.Messages(unix.RTM_GETRULE, func(m []byte) { k.rules = append(k.rules, newRule(m)) }),
	)
	markFirst(k.routes)
	return k, err
}

// interfaces returns the interfaces asked for, or what is missing. Where perhaps
// is set only time can tell whether the CNI has more to give.
func (k kernel) interfaces(o Options) (found []Interface, perhaps bool, missing error) {
	names := o.Interfaces
	if len(names) == 0 {
		names = []string{k.defaultName()}
	}
	for i, name := range names {
		if r := slices.IndexFunc(o.Recorded, func(in Interface) bool { return in.Name == name }); r >= 0 {
			found = append(found, o.Recorded[r])
			continue
		}
		l, ok := k.link(name)
		if !ok {
			return nil, false, &NotFoundError{Interface: name, There: k.names()}
		}
		in := k.newInterface(l)
		in.Elsewhere = k.elsewhere(l.Index)
		if i == 0 && !in.Up {
			return nil, false, fmt.Errorf("interface %s is down", name)
		}
		for _, a := range in.Addresses {
			if a.checking() {
				return nil, false, fmt.Errorf("duplicate address detection of %s on %s is still running", a.Prefix, name)
			}
		}
		if i == 0 && !in.hasAddress() {
			if len(o.Interfaces) == 0 || !k.mayLackAddress(in) {
				return nil, false, in.noAddress()
			}
			perhaps = true
		}
		found = append(found, in)
	}
	if !isRecorded(found[0], o) {
		found[0].Omitted = append(found[0].Omitted, k.podOmissions(slices.Concat(found, o.Recorded))...)
	}
	return found, perhaps, nil
}

func isRecorded(in Interface, o Options) bool {
	return slices.ContainsFunc(o.Recorded, func(r Interface) bool { return r.Name == in.Name })
}

// mayLackAddress reports whether an interface that was named may be one of a
// network without IPAM: the pod has its address on another one, which its CNI
// gives before it makes further ones, or a router says that there is a network.
func (k kernel) mayLackAddress(in Interface) bool {
	if slices.ContainsFunc(in.Addresses, Address.FromRouter) {
		return true
	}
	return slices.ContainsFunc(k.links, func(l nl.Link) bool {
		return !l.Loopback() && l.Index != in.Index && k.newInterface(l).hasAddress()
	})
}

// noAddress says why the interface has none.
func (i Interface) noAddress() error {
	for _, a := range i.Addresses {
		switch {
		case a.FromRouter():
			return fmt.Errorf("interface %s has no address from the CNI: the kernel made %s from a router advertisement; "+
				"if the network has no IPAM, name the interface, and the VM joins the network like any other host", i.Name, a.Prefix)
		case a.Flags&unix.IFA_F_DADFAILED != 0:
			return fmt.Errorf("interface %s has no address: %s is a duplicate, another host on the link has it", i.Name, a.Prefix)
		case !a.Global() && a.Prefix.Addr().Is4():
			return fmt.Errorf("interface %s has no address: the scope of %s is %s, so other hosts can't use it", i.Name, a.Prefix, a.Scope)
		}
	}
	return fmt.Errorf("interface %s has no address", i.Name)
}

func (k kernel) link(name string) (nl.Link, bool) {
	i := slices.IndexFunc(k.links, func(l nl.Link) bool { return l.Name == name })
	if i < 0 {
		return nl.Link{}, false
	}
	return k.links[i], true
}

func (k kernel) names() []string {
	var names []string
	for _, l := range k.links {
		names = append(names, l.Name)
	}
	return names
}
