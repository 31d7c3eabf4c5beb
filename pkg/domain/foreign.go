package domain

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A ForeignNIC is an interface of a domain which [Attach] leaves as it is, since
// none of the NICs has its alias, tap or MAC.
type ForeignNIC struct {
	Position int    // among the domain's interfaces, from 1
	Type     string // network, bridge, user, …
	MAC      string // as the domain has it, like the rest; empty: libvirt chooses one
	Alias    string
	Target   string // the device that QEMU opens
	// Problem says why it does not work in a pod; empty: it may work.
	Problem string
	// Remedy is the way out of the Problem.
	Remedy string
}

// String names f by what tells it from the others.
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
// and QEMU's own sockets reach nobody, since it is the VM that has the pod's
// address. A device which something else gave the pod works: a hostdev, vdpa or
// vhostuser, a tap or a bridge that is there.
func Foreign(xml []byte, devices []string, nics ...NIC) ([]ForeignNIC, error) {
	root, err := parseDomain(xml)
	if err != nil {
		return nil, fmt.Errorf("parse domain XML: %w", err)
	}
	wanted, err := complete(nics)
	if err != nil {
		return nil, err
	}
	matched, err := match(root, wanted)
	if err != nil {
		return nil, err
	}
	remedy := remedyOf(wanted, matched)
	var foreign []ForeignNIC
	for at, iface := range root.all("devices", "interface") {
		if slices.Contains(matched, iface) {
			continue
		}
		f := ForeignNIC{
			Position: at + 1, Type: iface.value("type"), MAC: iface.value("address", "mac"),
			Alias: iface.value("name", "alias"), Target: iface.value("dev", "target"),
			Problem: problemOf(iface, devices, wanted),
		}
		if f.Problem != "" {
			f.Remedy = remedy
		}
		foreign = append(foreign, f)
	}
	return foreign, nil
}

// remedyOf says what to do with an interface that does not work. It may become a
// NIC that no interface of the domain is yet.
func remedyOf(nics []NIC, matched []*node) string {
	var free []string
	for i, n := range nics {
		if matched[i] == nil {
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
func problemOf(iface *node, devices []string, nics []NIC) string {
	isMissing := func(device string) bool { return !slices.Contains(devices, device) }
	isPods := func(device string) bool { // where the VM has the network, a link without carrier keeps the name
		return slices.ContainsFunc(nics, func(n NIC) bool { return n.Interface == device })
	}
	const noWayOut = "%s is no way out of the pod once its network is the VM's"
	backend := cmp.Or(iface.value("type", "backend"), "QEMU")
	noNetwork := backend + " has no network of its own in a pod whose network is the VM's"
	if backend == "passt" { // of type user or vhostuser
		return noNetwork
	}
	switch cmp.Or(iface.value("type"), "user") { // libvirt's default
	case "network":
		return fmt.Sprintf("a pod has no libvirt network such as %s", iface.value("network", "source"))
	case "bridge":
		if bridge := iface.value("bridge", "source"); isMissing(bridge) {
			return fmt.Sprintf("there is no bridge %s in the pod", bridge)
		} else if isPods(bridge) {
			return fmt.Sprintf(noWayOut, bridge)
		}
	case "direct":
		device := iface.value("dev", "source")
		if isMissing(device) {
			return fmt.Sprintf("there is no device %s in the pod", device)
		}
		if isPods(device) {
			return fmt.Sprintf(noWayOut, device)
		}
	case "ethernet":
		device := iface.value("dev", "target")
		if iface.value("managed", "target") != "no" {
			if len(iface.all("script")) == 0 {
				return "nothing connects the tap that libvirt makes for it"
			}
		} else if isMissing(device) {
			return fmt.Sprintf("there is no tap %s in the pod", device)
		}
	case "user":
		return noNetwork
	case "client", "udp", "mcast":
		if a, err := netip.ParseAddr(iface.value("address", "source")); err != nil || !a.IsLoopback() {
			return noNetwork
		}
	}
	return ""
}
