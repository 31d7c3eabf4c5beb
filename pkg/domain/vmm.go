package domain

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// qemuModels are QEMU's PCI devices. libvirt calls those of virtio without -net-pci.
var qemuModels = []string{
	"virtio-net-pci", "virtio-net-pci-transitional", "virtio-net-pci-non-transitional", "e1000", "e1000e", "igb",
	"rtl8139", "vmxnet3", "pcnet", "ne2k_pci", "i82551", "i82557b", "i82559er",
}

// Interfaces returns the NICs as the <interface> elements that [Attach] would add
// to the <devices> of a domain which does not boot from the network. For a
// launcher that makes the domain's XML itself.
func Interfaces(nics ...NIC) ([]byte, error) {
	wanted, err := complete(nics)
	if err != nil {
		return nil, err
	}
	doc := etree.NewDocument()
	doc.WriteSettings = written
	for _, n := range wanted {
		if err := n.configure(doc.CreateElement("interface"), etree.NewElement("domain")); err != nil {
			return nil, err
		}
	}
	doc.Indent(2)
	return doc.WriteToBytes()
}

// QEMUArgs returns the arguments that give a QEMU, started without libvirt, the
// NICs: a -netdev and a -device for each. The device has no option ROM, so the
// guest does not boot from it. An error names the NIC whose model is not known
// to be a PCI device of QEMU.
func QEMUArgs(nics ...NIC) ([]string, error) {
	wanted, err := complete(nics)
	if err != nil {
		return nil, err
	}
	var args []string
	for _, n := range wanted {
		n.Model = cmp.Or(n.Model, defaultModel)
		model := strings.Replace(n.Model, defaultModel, "virtio-net-pci", 1)
		if !slices.Contains(qemuModels, model) {
			return nil, fmt.Errorf("NIC %s: model %s is not a known PCI device of QEMU", n, n.Model)
		}
		if n.Queues > 1 && !n.isVirtio() {
			return nil, fmt.Errorf("NIC %s: %d queues need a virtio model, not %s", n, n.Queues, n.Model)
		}
		id := "host" + n.Alias // as libvirt has it; the alias is the device's
		netdev := fmt.Sprintf("tap,id=%s,ifname=%s,script=no,downscript=no", id, qemuValue(n.Tap))
		device := fmt.Sprintf("%s,netdev=%s,id=%s,mac=%s,romfile=", model, id, n.Alias, n.MAC)
		if n.isVirtio() && n.MTU > 0 {
			device += fmt.Sprintf(",host_mtu=%d", n.MTU)
		}
		if n.Queues > 1 {
			netdev += fmt.Sprintf(",queues=%d", n.Queues)
			// Two for each pair, one for the control queue and one for changes.
			device += fmt.Sprintf(",mq=on,vectors=%d", 2*n.Queues+2)
		}
		args = append(args, "-netdev", netdev, "-device", device)
	}
	return args, nil
}

// qemuValue is text as the value of an option (qemu(1): a comma is doubled).
func qemuValue(text string) string { return strings.ReplaceAll(text, ",", ",,") }

// CloudHypervisorArgs returns the arguments that give Cloud Hypervisor the NICs:
// one --net with all of them, for it is not repeatable. The MTU is left out: it
// tells the guest the tap's, and would need CAP_NET_ADMIN to set the same again.
// It wants at least as many vCPUs as queues. An error names the NIC that it
// can't have.
func CloudHypervisorArgs(nics ...NIC) ([]string, error) {
	wanted, err := complete(nics)
	if err != nil || len(wanted) == 0 {
		return nil, err
	}
	args := []string{"--net"}
	for _, n := range wanted {
		if n.Model = cmp.Or(n.Model, defaultModel); !n.isVirtio() {
			return nil, fmt.Errorf("NIC %s: Cloud Hypervisor has no model %s, only virtio", n, n.Model)
		}
		if strings.ContainsAny(n.Tap, `,[]"`) {
			return nil, fmt.Errorf("NIC %s: Cloud Hypervisor does not take the tap name %q", n, n.Tap)
		}
		// Receive and transmit queues count one by one.
		args = append(args, fmt.Sprintf("tap=%s,mac=%s,num_queues=%d", n.Tap, n.MAC, 2*n.Queues))
	}
	return args, nil
}

// firecrackerInterface is what Firecracker has in its configuration file, or is
// sent by PUT /network-interfaces/{iface_id}.
type firecrackerInterface struct {
	ID  string `json:"iface_id"`
	MAC string `json:"guest_mac"`
	Tap string `json:"host_dev_name"`
}

// FirecrackerConfig returns the part of Firecracker's configuration file with
// the NICs: an object with "network-interfaces". The MTU is not in it, since
// Firecracker before 1.16 refuses a file that has one; the guest learns it by
// DHCP. An error names the NIC that it can't have.
func FirecrackerConfig(nics ...NIC) ([]byte, error) {
	wanted, err := complete(nics)
	if err != nil {
		return nil, err
	}
	interfaces := []firecrackerInterface{}
	for _, n := range wanted {
		n.Model = cmp.Or(n.Model, defaultModel)
		switch {
		case !n.isVirtio():
			return nil, fmt.Errorf("NIC %s: Firecracker has no model %s, only virtio", n, n.Model)
		case n.Queues > 1:
			return nil, fmt.Errorf("NIC %s: Firecracker can't open a tap with %d queues, only with one", n, n.Queues)
		}
		id := strings.ReplaceAll(strings.TrimPrefix(n.Alias, aliasPrefix), "-", "_") // all it takes in a path
		if slices.ContainsFunc(interfaces, func(i firecrackerInterface) bool { return i.ID == id }) {
			return nil, fmt.Errorf("NIC %s: another NIC has the iface_id %s", n, id)
		}
		interfaces = append(interfaces, firecrackerInterface{ID: id, MAC: n.MAC.String(), Tap: n.Tap})
	}
	out, err := json.MarshalIndent(map[string]any{"network-interfaces": interfaces}, "", "  ")
	return append(out, '\n'), err
}

func (n NIC) isVirtio() bool { return strings.HasPrefix(n.Model, defaultModel) }
