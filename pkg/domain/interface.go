package domain

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"
)

// replaced lists the elements of an interface that a NIC describes, and those
// which say how the host connects it. On one of type ethernet libvirt refuses
// virtualport, port, coalesce, ip and route, and does not read vlan, portForward
// and actual; source would put addresses on the tap and script and downscript may
// do anything to it; filterref needs the nwfilter driver and ebtables, which a pod
// does not have, for what the pod's port guard does.
var replaced = []string{
	"mac", "target", "model", "mtu", "alias",
	"source", "virtualport", "vlan", "port", "portForward", "ip", "route", "script", "downscript", "coalesce", "filterref", "actual",
}

// configure makes the interface of the domain the NIC n.
func (n NIC) configure(iface, domain *etree.Element) error {
	n.Model = cmp.Or(n.Model, value(iface, "type", "model"), defaultModel)
	if n.Queues > 1 && !n.isVirtio() {
		return fmt.Errorf("NIC %s: %d queues need a virtio model, not %s", n, n.Queues, n.Model)
	}
	if n.Queues > 1 && len(find(iface, "driver")) == 0 {
		iface.CreateElement("driver")
	}
	for _, driver := range find(iface, "driver") {
		driver.RemoveAttr("queues")
		if n.Queues > 1 { // QEMU can't open the tap with another number than it has
			driver.CreateAttr("queues", strconv.Itoa(n.Queues))
		}
		if name := value(driver, "name"); name != "vhost" && name != "qemu" {
			driver.RemoveAttr("name") // of type hostdev
		}
	}
	for _, limit := range find(iface, "bandwidth", "inbound") {
		limit.RemoveAttr("floor") // of a libvirt network
	}
	kept := slices.DeleteFunc(iface.Child, n.replaces)
	iface.Child = nil
	iface.CreateAttr("type", "ethernet")
	iface.RemoveAttr("managed")             // of type hostdev
	iface.RemoveAttr("trustGuestRxFilters") // libvirt would follow the guest's MAC on the tap
	iface.CreateElement("mac").CreateAttr("address", n.MAC.String())
	target := iface.CreateElement("target")
	target.CreateAttr("dev", n.Tap)
	target.CreateAttr("managed", "no") // else libvirt makes the tap, or fails and deletes it
	iface.CreateElement("model").CreateAttr("type", n.Model)
	if n.MTU > 0 {
		iface.CreateElement("mtu").CreateAttr("size", strconv.Itoa(n.MTU))
	}
	iface.CreateElement("alias").CreateAttr("name", n.Alias)
	iface.Child = append(iface.Child, kept...)
	iface.ReindexChildren()
	if n.hasUnusedROM(iface, domain) {
		iface.CreateElement("rom").CreateAttr("enabled", "no")
	}
	return nil
}

// replaces reports whether the child of an interface is not kept.
func (n NIC) replaces(child etree.Token) bool {
	e, is := child.(*etree.Element)
	if !is {
		_, is := child.(*etree.CharData) // libvirt reads no text there
		return is
	}
	kind := value(e, "type")
	switch tag := e.FullTag(); tag {
	case "driver":
		return len(e.Attr) == 0 && len(e.ChildElements()) == 0
	case "backend": // another program at the tap, as passt
		return kind != ""
	case "teaming": // the other half of a hostdev
		return kind == "transient"
	case "address":
		return kind == "usb" && n.Model != "usb-net"
	default:
		return slices.Contains(replaced, tag)
	}
}

// hasUnusedROM reports whether the interface has an option ROM, as only a PCI
// device has, that nothing in the domain asks for.
func (n NIC) hasUnusedROM(iface, domain *etree.Element) bool {
	isPCI := cmp.Or(value(iface, "type", "address"), "pci") == "pci" && n.Model != "usb-net" && n.Model != "spapr-vlan" &&
		!strings.HasPrefix(value(domain, "arch", "os", "type"), "s390")
	boots := len(find(iface, "boot")) > 0 ||
		slices.ContainsFunc(find(domain, "os", "boot"), func(b *etree.Element) bool { return value(b, "dev") == "network" })
	return isPCI && !boots && len(find(iface, "rom")) == 0
}

// addInterface adds an empty interface to the domain, after its others.
func addInterface(domain *etree.Element) *etree.Element {
	all := find(domain, "devices")
	if len(all) == 0 {
		all = append(all, domain.CreateElement("devices"))
	}
	devices := all[len(all)-1]
	if end := len(devices.Child) - 1; end >= 0 && isSpace(devices.Child[end]) {
		devices.RemoveChildAt(end)
	}
	devices.CreateText("\n    ") // as libvirt indents it
	iface := devices.CreateElement("interface")
	devices.CreateText("\n  ")
	return iface
}

// indent puts each child of an interface, which has no text between them, on a
// line of its own.
func indent(iface *etree.Element) {
	children := iface.Child
	iface.Child = nil
	for _, c := range children {
		iface.CreateText("\n      ")
		iface.Child = append(iface.Child, c)
	}
	iface.CreateText("\n    ")
	iface.ReindexChildren()
}
