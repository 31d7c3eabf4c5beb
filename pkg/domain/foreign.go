package domain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// A ForeignNIC is an interface of a domain which [Attach] leaves as it is, since
// none of the NICs has its alias, tap or MAC.
type ForeignNIC struct {
	Position int    // among the domain's interfaces, from 1
	Type     string // as libvirt knows it: network, user, …
	MAC      string // as the domain has it, like the rest; empty: libvirt chooses one
	Alias    string
	Target   string // the device that QEMU opens
	// Problem says why it does not work in a pod; empty: it may work.
	Problem string
	// Remedy is the way out of the Problem.
	Remedy string
}

// String names f by what distinguishes it from the others.
func (f ForeignNIC) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "interface %d", f.Position)
	for _, part := range []struct{ what, value string }{{"type", f.Type}, {"MAC", f.MAC}, {"alias", f.Alias}, {"target", f.Target}} {
		if part.value != "" {
			s.WriteString(" " + part.what + " " + part.value)
		}
	}
	return s.String()
}

// Foreign returns the interfaces of the domain that Attach leaves beside the NICs,
// in their order. Devices are the names of the network devices that the pod's
// namespace has: an interface that needs another one does not work.
//
// It knows what the types of libvirt need. In a pod there is no libvirt network,
// and QEMU's own sockets reach nobody, since the VM has the pod's address. A
// device that something else gave the pod works: a hostdev, vdpa or vhostuser, or
// a network device that is there.
func Foreign(xml []byte, devices []string, nics ...NIC) ([]ForeignNIC, error) {
	d, err := read(xml, nics)
	if err != nil {
		return nil, err
	}
	var foreign []ForeignNIC
	for at, iface := range d.interfaces {
		if slices.Contains(d.matched, iface) {
			continue
		}
		f := ForeignNIC{
			Position: at + 1, Type: value(iface, "type"), MAC: value(iface, "address", "mac"),
			Alias: value(iface, "name", "alias"), Target: value(iface, "dev", "target"),
			Problem: problemOf(iface, devices, d.nics),
		}
		if f.Problem != "" {
			f.Remedy = d.remedy()
		}
		foreign = append(foreign, f)
	}
	return foreign, nil
}

// remedy says what to do with an interface that does not work. It may become a
// NIC that no interface of the domain is yet.
func (d *definition) remedy() string {
	var free []string
	for i, n := range d.nics {
		if d.matched[i] == nil {
			free = append(free, fmt.Sprintf("<alias name='%s'/>", n.Alias))
		}
	}
	if len(free) == 0 {
		return "remove it"
	}
	return fmt.Sprintf("give it %s to make it the pod's, or remove it", strings.Join(free, " or "))
}

// problemOf says why the interface does not work in a pod with these devices;
// empty if it may.
func problemOf(iface *etree.Element, devices []string, nics []NIC) string {
	backend := cmp.Or(value(iface, "type", "backend"), "QEMU")
	noNetwork := backend + " has no network: the pod's network is the VM's"
	if backend == "passt" { // of type user or vhostuser
		return noNetwork
	}
	var device string
	switch kind := cmp.Or(value(iface, "type"), "user"); kind { // libvirt's default
	case "network":
		return fmt.Sprintf("a pod has no libvirt network such as %s", value(iface, "network", "source"))
	case "user":
		return noNetwork
	case "client", "udp", "mcast":
		if a, err := netip.ParseAddr(value(iface, "address", "source")); err != nil || !a.IsLoopback() {
			return noNetwork
		}
	case "ethernet":
		if value(iface, "managed", "target") == "no" {
			device = value(iface, "dev", "target")
		} else if len(find(iface, "script")) == 0 {
			return "nothing connects the tap that libvirt makes for it"
		}
	case "direct":
		device = value(iface, "dev", "source")
	default: // the attribute that names a network device is called like the type
		device = value(iface, kind, "source")
	}
	switch {
	case device == "":
	case !slices.Contains(devices, device):
		return fmt.Sprintf("there is no device %s in the pod", device)
	case slices.ContainsFunc(nics, func(n NIC) bool { return n.Interface == device }): // a link without carrier keeps the name
		return fmt.Sprintf("%s does not reach the network once the VM has it", device)
	}
	return ""
}
