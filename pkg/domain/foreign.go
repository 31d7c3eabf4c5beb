package domain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// A ForeignNIC is an interface of a domain which [Attach] leaves as it is, since
// none of the NICs has its alias, tap or MAC.
type ForeignNIC struct {
	// Name distinguishes it from the domain's other interfaces, by its position from
	// 1 and what the domain says of it: type, MAC, alias and target.
	Name string
	// Problem says why it does not work in a pod; empty: it may work.
	Problem string
	// Remedy is the way out of the Problem.
	Remedy string
}

// nameOf returns the Name of the interface that is the nth of its domain.
func nameOf(iface *etree.Element, n int) string {
	words := []string{"interface", strconv.Itoa(n)}
	for _, part := range [][]string{{"type", "type"}, {"MAC", "address", "mac"}, {"alias", "name", "alias"}, {"target", "dev", "target"}} {
		if v := value(iface, part[1], part[2:]...); v != "" {
			words = append(words, part[0], v)
		}
	}
	return strings.Join(words, " ")
}

// Foreign returns the interfaces of the domain that Attach leaves beside the NICs,
// in their order. Devices are the names of the network devices that the pod's
// namespace has: an interface that needs another one does not work.
//
// It knows what the types of libvirt need. In a pod there is no libvirt network,
// and QEMU's own sockets reach nobody, if the VM has the pod's address alone. A
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
		f := ForeignNIC{Name: nameOf(iface, at+1), Problem: problemOf(iface, devices, d.nics)}
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
	if slices.ContainsFunc(nics, func(n NIC) bool { return n.Shared }) {
		noNetwork = ""
	}
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
	case slices.ContainsFunc(nics, func(n NIC) bool { return n.Interface == device && !n.Shared }): // a link without carrier keeps the name
		return fmt.Sprintf("%s does not reach the network once the VM has it", device)
	}
	return ""
}
