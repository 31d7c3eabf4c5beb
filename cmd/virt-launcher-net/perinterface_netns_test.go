package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// All verbs read a flag for one interface alike: what one prepared, the others
// find so.
func TestPerInterfaceFlags(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path(), "link set net1 up", "addr add 10.9.0.7/24 dev net1")
	common := podArgs(t, pod, "-i", "eth0", "-i", "net1", "--mtu", "1400",
		"--mac", "net1=52:54:00:00:00:01", "--tap-name", "net1=vm1", "--mtu", "net1=1300", "--guard", "net1=off")
	run := func(args ...string) string {
		t.Helper()
		r := runCLI(t, domainXML, append(args, common...)...)
		if r.code != exitDone {
			t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
		}
		return r.stdout
	}
	planned := run("plan")
	for _, want := range []string{"ip tuntap add dev vm1 ", "ip link set vm1 mtu 1300", "ip link set tap-eth0 mtu 1400"} {
		if !strings.Contains(planned, want) {
			t.Errorf("no %q in the plan:\n%s", want, planned)
		}
	}
	xml := run("domain", "-")
	for range 2 {
		if out := run("prepare"); !strings.Contains(out, "vm1") || !strings.Contains(out, "52:54:00:00:00:01") || !strings.Contains(out, pod.MAC.String()) {
			t.Errorf("prepare printed\n%s", out)
		}
	}
	if again := run("domain", "-"); again != xml || !strings.Contains(xml, `<mac address="52:54:00:00:00:01"/>`) || !strings.Contains(xml, `<mtu size="1400"/>`) {
		t.Errorf("the domain was\n%s\nand is\n%s", xml, again)
	}
	if r := runCLI(t, "", podArgs(t, pod, "plan", "-i", "net7", "--mac", "net1=52:54:00:00:00:01")...); r.code != exitUsage {
		t.Errorf("options of an interface that is not named: exit code %d: %s", r.code, r.stderr)
	}
}

// Ports for one interface take the place of those for all, whoever they name, and so does a
// datapath without ports.
func TestPortsOfOneInterface(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	for i, name := range []string{"net1", "net2"} {
		pod.IP(t, "link add "+name+" type veth peer name "+name+" netns "+pod.Node.Path(), "link set "+name+" up", fmt.Sprintf("addr add 10.9.%d.7/24 dev %s", i, name))
	}
	r := runCLI(t, "", podArgs(t, pod, "plan", "-i", "eth0", "-i", "net1", "-i", "net2", "--datapath", "redirect", "--pod-ports", "8080",
		"--vm-ports", "net1=22", "--datapath", "net2=bridge")...)
	if r.code != exitDone || !strings.Contains(r.stdout, "ip link add br-net2 ") {
		t.Errorf("exit code %d: %s%s", r.code, r.stderr, r.stdout)
	}
}

// A = in a boot file or a DHCP option is theirs, unless an interface is before it.
func TestFlagsWithASign(t *testing.T) {
	t.Parallel()
	p := &program{}
	cmd := p.command(p.run(), true)
	p.hook.Interfaces = []string{"eth0", "net1"}
	if err := cmd.ParseFlags([]string{
		"--boot-file", "efi-x64=http://boot/x?a=b", "--boot-file", "net1=efi-x64=net.efi", "--dhcp-option", "252=a=b", "--dhcp-option", "net1=252=c",
		"--dns", "10.0.0.1", "--dns", "net1=10.0.0.2",
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.setPerInterface(); err != nil {
		t.Fatal(err)
	}
	all, own := p.hook.Lease, p.hook.PerInterface["net1"].Lease
	if len(all.BootFiles) != 1 || all.BootFiles[0].Name != "http://boot/x?a=b" || string(all.Options[0].Value) != "a=b" {
		t.Errorf("all have %+v", all)
	}
	if len(own.BootFiles) != 1 || own.BootFiles[0].Name != "net.efi" || string(own.Options[0].Value) != "c" || len(own.DNS) != 1 || own.DNS[0].String() != "10.0.0.2" {
		t.Errorf("net1 has %+v", own)
	}
}
