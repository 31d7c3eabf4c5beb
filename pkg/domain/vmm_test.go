package domain

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Interfaces returns what Attach adds.
func TestInterfaces(t *testing.T) {
	nics := []NIC{eth0, net1, with(eth0, func(n *NIC) {
		n.Interface, n.Tap, n.MAC, n.Model = "net2", "tap-net2", mac.Addr{0x52, 0x54, 0, 0, 0, 2}, "e1000e"
	})}
	fragment, err := Interfaces(nics...)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join("testdata", "interfaces.golden.xml"), fragment, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff(string(readFile(t, "interfaces.golden.xml")), string(fragment)); d != "" {
		t.Errorf("(-golden +got):\n%s", d)
	}
	attached, err := Attach([]byte("<domain>\n<devices>\n</devices>\n</domain>\n"), nics...)
	if err != nil {
		t.Fatal(err)
	}
	bare := func(xml []byte) string { return strings.Join(strings.Fields(string(xml)), " ") }
	if !strings.Contains(bare(attached), bare(fragment)) {
		t.Errorf("Attach adds\n%s", attached)
	}
	again, err := Attach([]byte("<domain>\n<devices>\n"+string(fragment)+"</devices>\n</domain>\n"), nics...)
	if err != nil || !strings.Contains(bare(again), bare(fragment)) {
		t.Errorf("Attach changes it: %v\n%s", err, again)
	}
}

// libvirt takes a domain that is put together from Interfaces, by its schema too.
func TestInterfacesAreValid(t *testing.T) {
	virsh := podtest.Packaged(t, "/usr/bin/virsh")
	fragment, err := Interfaces(eth0, net1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "vm.xml")
	doc := "<domain type='test'><name>vm</name><memory>1024</memory><os><type>hvm</type></os><devices>" + string(fragment) + "</devices></domain>"
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), virsh, "--connect", "test:///default", "define", "--validate", file).CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func TestVMMs(t *testing.T) {
	comma := with(eth0, func(n *NIC) { n.Tap = "tap,a" })
	e1000e := with(eth0, func(n *NIC) { n.Model = "e1000e" })
	old := with(eth0, func(n *NIC) { n.Model = "lance" })
	many := with(e1000e, func(n *NIC) { n.Queues = 2 })
	dash := with(net1, func(n *NIC) { n.Interface, n.Queues = "eth-0", 1 })
	under := with(eth0, func(n *NIC) { n.Interface = "eth_0" })
	for _, test := range []struct {
		name                               string
		nics                               []NIC
		qemu, cloudHypervisor, firecracker string // what is written, or what the error says
	}{
		{"none", nil, "", "", `{"network-interfaces":[]}`},
		{
			"one",
			[]NIC{eth0},
			"-netdev tap,id=hostua-eth0,ifname=tap-eth0,script=no,downscript=no" +
				" -device virtio-net-pci,netdev=hostua-eth0,id=ua-eth0,mac=0a:58:0a:f4:01:07,romfile=,host_mtu=1450",
			"--net tap=tap-eth0,mac=0a:58:0a:f4:01:07,num_queues=2",
			`{"network-interfaces":[{"iface_id":"eth0","guest_mac":"0a:58:0a:f4:01:07","host_dev_name":"tap-eth0"}]}`,
		},
		{
			"two, one with queues",
			[]NIC{with(eth0, func(n *NIC) { n.MTU = 0 }), net1},
			"-netdev tap,id=hostua-eth0,ifname=tap-eth0,script=no,downscript=no" +
				" -device virtio-net-pci,netdev=hostua-eth0,id=ua-eth0,mac=0a:58:0a:f4:01:07,romfile=" +
				" -netdev tap,id=hostua-net1,ifname=tap-net1,script=no,downscript=no,queues=4" +
				" -device virtio-net-pci,netdev=hostua-net1,id=ua-net1,mac=0a:58:0a:f4:02:07,romfile=,host_mtu=9001,mq=on,vectors=10",
			"--net tap=tap-eth0,mac=0a:58:0a:f4:01:07,num_queues=2 tap=tap-net1,mac=0a:58:0a:f4:02:07,num_queues=8",
			"NIC net1: Firecracker can't open a tap with 4 queues, only with one",
		},
		{
			"another model",
			[]NIC{e1000e},
			"-netdev tap,id=hostua-eth0,ifname=tap-eth0,script=no,downscript=no" +
				" -device e1000e,netdev=hostua-eth0,id=ua-eth0,mac=0a:58:0a:f4:01:07,romfile=",
			"NIC eth0: Cloud Hypervisor has no model e1000e, only virtio",
			"NIC eth0: Firecracker has no model e1000e, only virtio",
		},
		{
			"a model nobody has",
			[]NIC{old},
			"NIC eth0: model lance is not a known PCI device of QEMU",
			"NIC eth0: Cloud Hypervisor has no model lance, only virtio",
			"NIC eth0: Firecracker has no model lance, only virtio",
		},
		{
			"queues that the model has not",
			[]NIC{many},
			"NIC eth0: 2 queues need a virtio model, not e1000e",
			"NIC eth0: Cloud Hypervisor has no model e1000e, only virtio",
			"NIC eth0: Firecracker has no model e1000e, only virtio",
		},
		{
			"a tap with a comma",
			[]NIC{comma},
			"-netdev tap,id=hostua-eth0,ifname=tap,,a,script=no,downscript=no" +
				" -device virtio-net-pci,netdev=hostua-eth0,id=ua-eth0,mac=0a:58:0a:f4:01:07,romfile=,host_mtu=1450",
			`NIC eth0: Cloud Hypervisor does not take the tap name "tap,a"`,
			`{"network-interfaces":[{"iface_id":"eth0","guest_mac":"0a:58:0a:f4:01:07","host_dev_name":"tap,a"}]}`,
		},
		{
			"names that only Firecracker confuses",
			[]NIC{under, dash},
			"-netdev tap,id=hostua-eth_0,ifname=tap-eth0,script=no,downscript=no" +
				" -device virtio-net-pci,netdev=hostua-eth_0,id=ua-eth_0,mac=0a:58:0a:f4:01:07,romfile=,host_mtu=1450" +
				" -netdev tap,id=hostua-eth-0,ifname=tap-net1,script=no,downscript=no" +
				" -device virtio-net-pci,netdev=hostua-eth-0,id=ua-eth-0,mac=0a:58:0a:f4:02:07,romfile=,host_mtu=9001",
			"--net tap=tap-eth0,mac=0a:58:0a:f4:01:07,num_queues=2 tap=tap-net1,mac=0a:58:0a:f4:02:07,num_queues=2",
			"NIC eth-0: another NIC has the iface_id eth_0",
		},
		{"an incomplete NIC", []NIC{{}}, "NIC : neither interface nor alias given", "NIC : neither interface nor alias given", "NIC : neither interface nor alias given"},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(vmm, want, got string, err error) {
				if err != nil {
					got = err.Error()
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s (-want +got):\n%s", vmm, d)
				}
			}
			args, err := QEMUArgs(test.nics...)
			check("QEMU", test.qemu, strings.Join(args, " "), err)
			args, err = CloudHypervisorArgs(test.nics...)
			check("Cloud Hypervisor", test.cloudHypervisor, strings.Join(args, " "), err)
			config, err := FirecrackerConfig(test.nics...)
			var compact bytes.Buffer
			if err == nil {
				err = json.Compact(&compact, config)
			}
			check("Firecracker", test.firecracker, compact.String(), err)
		})
	}
}
