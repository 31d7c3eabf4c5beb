package domain

import (
	"slices"
	"strings"
	"testing"
)

// What virt-install, nova and KubeVirt write besides the pod's NIC, and what a pod
// may have been given by something else.
func TestForeign(t *testing.T) {
	const noNetwork = "has no network: "
	for _, c := range []struct{ name, iface, problem string }{
		{"network", `<interface type='network'><source network='default'/></interface>`, "no libvirt network such as default"},
		{"switch", `<interface type='bridge'><source bridge='brqc2028cd6-12'/></interface>`, "no device brqc2028cd6-12 in the pod"},
		{"switch that is there", `<interface type='bridge'><source bridge='k6t-net1'/></interface>`, ""},
		{"switch of the pod interface's name", `<interface type='bridge'><source bridge='eth0'/></interface>`, "eth0 does not reach the network"},
		{"no type", `<interface><model type='virtio'/></interface>`, "QEMU " + noNetwork},
		{"user", `<interface type='user'/>`, "QEMU " + noNetwork},
		{"passt", `<interface type='user'><backend type='passt'/></interface>`, "passt " + noNetwork},
		{"passt by vhost-user", `<interface type='vhostuser'><backend type='passt'/><source type='unix' mode='client'/></interface>`, "passt " + noNetwork},
		{"vhost-user", `<interface type='vhostuser'><source type='unix' path='/run/dpdk.sock' mode='client'/></interface>`, ""},
		{"macvtap", `<interface type='direct'><source dev='eno1'/></interface>`, "no device eno1 in the pod"},
		{"macvtap on the pod's interface", `<interface type='direct'><source dev='eth0'/></interface>`, "eth0 does not reach the network"},
		{"macvtap on another one", `<interface type='direct'><source dev='net1'/></interface>`, ""},
		{"libvirt's own tap", `<interface type='ethernet'><target dev='vnet0'/></interface>`, "nothing connects the tap"},
		{"tap and a script", `<interface type='ethernet'><script path='/etc/qemu-ifup'/></interface>`, ""},
		{"tap that is there", `<interface type='ethernet'><target dev='tap7' managed='no'/></interface>`, ""},
		{"tap that is not", `<interface type='ethernet'><target dev='tap8' managed='no'/></interface>`, "no device tap8 in the pod"},
		{"VF", `<interface type='hostdev' managed='yes'><source><address type='pci' domain='0' bus='4' slot='16' function='0'/></source></interface>`, ""},
		{"vDPA", `<interface type='vdpa'><source dev='/dev/vhost-vdpa-0'/></interface>`, ""},
		{"none", `<interface type='null'/>`, ""},
		{"multicast", `<interface type='mcast'><source address='230.0.0.1' port='5558'/></interface>`, noNetwork},
		{"tunnel within the pod", `<interface type='client'><source address='127.0.0.1' port='5558'/></interface>`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			xml := []byte(`<domain><devices>` + c.iface + `</devices></domain>`)
			foreign, err := Foreign(xml, []string{"lo", "eth0", "net1", "k6t-net1", "tap7"}, eth0)
			if err != nil || len(foreign) != 1 {
				t.Fatalf("got %v, %v", foreign, err)
			}
			f := foreign[0]
			if (f.Problem == "") != (c.problem == "") || !strings.Contains(f.Problem, c.problem) {
				t.Errorf("problem %q, want %q", f.Problem, c.problem)
			}
			if want := "give it <alias name='ua-eth0'/> to make it the pod's, or remove it"; f.Problem != "" && f.Remedy != want || f.Problem == "" && f.Remedy != "" {
				t.Errorf("remedy %q", f.Remedy)
			}
		})
	}
}

// Where the pod keeps its network beside the VM, what uses that works.
func TestForeignBesideSharedNIC(t *testing.T) {
	shared := eth0
	shared.Shared = true
	for _, iface := range []string{"<interface type='user'/>", "<interface type='user'><backend type='passt'/></interface>", "<interface type='direct'><source dev='eth0'/></interface>"} {
		foreign, err := Foreign([]byte("<domain><devices>"+iface+"</devices></domain>"), []string{"eth0"}, shared)
		if err != nil || len(foreign) != 1 || foreign[0].Problem != "" {
			t.Errorf("%s: %v, %v", iface, foreign, err)
		}
	}
}

// An interface that Attach takes for a NIC is none of the others, and what Attach
// returns has the same ones.
func TestForeignBesideAttached(t *testing.T) {
	for _, g := range goldens {
		in := readFile(t, g.name+".xml")
		before, err := Foreign(in, nil, g.nics...)
		if err != nil {
			t.Fatalf("%s: %v", g.name, err)
		}
		out, err := Attach(in, g.nics...)
		if err != nil {
			t.Fatal(err)
		}
		after, err := Foreign(out, nil, g.nics...)
		if err != nil {
			t.Fatal(err)
		}
		// NICs are added behind, so positions stay; none is left to become one.
		for i := range before {
			if before[i].Remedy != "" {
				before[i].Remedy = "remove it"
			}
		}
		if !slices.Equal(before, after) {
			t.Errorf("%s: before %+v, after %+v", g.name, before, after)
		}
	}
	foreign, err := Foreign(readFile(t, "several.xml"), nil, eth0)
	if err != nil || len(foreign) != 2 || foreign[1].Name != "interface 2 type user MAC 52:54:00:00:00:02" {
		t.Errorf("several.xml has %+v, %v", foreign, err)
	}
}
