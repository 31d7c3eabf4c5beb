package inside

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// TestNICs has the CNI plugin host-device lend the pod a physical NIC, which the VM gets, and
// which goes back to the node as it was. Its network is the NIC that it is connected to.
func TestNICs(t *testing.T) {
	paths := datapaths(t)
	pairs := pairsOfNICs(t)
	if len(pairs) == 0 {
		t.Skip("the machine has no pairs of NICs")
	}
	for _, driver := range slices.Sorted(maps.Keys(pairs)) {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			for _, datapath := range paths { // one after the other: they are of one pair
				t.Run(datapath, func(t *testing.T) { pairs[driver].test(t, datapath) })
			}
		})
	}
}

// pairOfNICs are two NICs that are connected, by their names.
type pairOfNICs struct{ lent, peer string }

// pairsOfNICs are those of the machine, by the driver of the first. See TestNICs of the package
// kernels for their MACs.
func pairsOfNICs(t *testing.T) map[string]pairOfNICs {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]pairOfNICs{}
	for _, a := range links {
		for _, b := range links {
			if mac := a.HardwareAddr.String(); !strings.HasPrefix(mac, "52:54:00:00:") || !strings.HasSuffix(mac, ":00") || b.HardwareAddr.String() != mac[:15]+"01" {
				continue
			}
			driver, err := os.Readlink(filepath.Join("/sys/class/net", a.Name, "device/driver"))
			if err != nil {
				t.Fatal(err)
			}
			pairs[filepath.Base(driver)] = pairOfNICs{a.Name, b.Name}
		}
	}
	return pairs
}

func (p pairOfNICs) test(t *testing.T, datapath string) {
	pod := podtest.NewBarePod(t)
	p.give(t, pod.Node, p.lent)
	p.give(t, pod.Outside, p.peer)
	pod.Node.IP(t, "link set "+p.lent+" mtu 1400 up")
	pod.Outside.IP(t, "addr add 198.51.100.1/24 dev "+p.peer, "addr add 2001:db8:7::1/64 dev "+p.peer+" nodad", "link set "+p.peer+" up")
	wire := network{pod.Outside, p.peer}
	wire.route(t)
	before := deviceOf(t, pod.Node, p.lent)

	attachment := p.lend(t, pod)
	v := newVM(t, pod, datapath)
	v.wire = wire
	v.live(t)
	p.back(t, pod, attachment, before)

	// Killed, it gives the device back as well.
	attachment = p.lend(t, pod)
	v.Serve(t)
	v.plugGuest(t)
	v.lease(t)
	v.groups(t)
	if err := v.Stop(syscall.SIGKILL); err == nil {
		t.Error("it was killed and says that it ended well")
	}
	if err := v.guest.Close(); err != nil {
		t.Error(err)
	}
	if datapath != redirect {
		v.Run(t, "restore")
	}
	p.back(t, pod, attachment, before)
	if datapath != redirect {
		return
	}
	v.restoreAll(t)

	// By redirect the plugin takes it at any time.
	attachment = p.lend(t, pod)
	v.Serve(t)
	p.back(t, pod, attachment, before)
	if err := v.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("virt-launcher-net run ended with: %v", err)
	}
	v.restoreAll(t)
}

// back has the plugin take the NIC back, and fails the test unless the node has it as before.
func (p pairOfNICs) back(t *testing.T, pod *podtest.Pod, attachment *podtest.Attachment, before string) {
	t.Helper()
	if err := attachment.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	if now := deviceOf(t, pod.Node, p.lent); now != before {
		t.Errorf("the node gets back\n%s\nand had\n%s", now, before)
	}
}

// restoreAll has the program remove what it has made for an interface that is gone.
func (v *vm) restoreAll(t *testing.T) {
	t.Helper()
	v.Run(t, "restore")
	if left := v.pod.Run(t, "ip", "-br", "link") + v.pod.Run(t, "nft", "list", "ruleset"); strings.Contains(left, "eth0") {
		t.Errorf("restore leaves\n%s", left)
	}
}

// give moves a NIC from the machine to a namespace, until the test's end.
func (p pairOfNICs) give(t *testing.T, ns *podtest.NS, name string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", name, "netns", ns.Path()).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := ns.Output(context.Background(), "ip", "link", "set", name, "netns", "1"); err != nil && !t.Failed() { // the pod has it still
			t.Errorf("%v: %s", err, out)
		}
	})
}

// lend has the CNI plugin lend the NIC to the pod as its eth0.
func (p pairOfNICs) lend(t *testing.T, pod *podtest.Pod) *podtest.Attachment {
	t.Helper()
	conf := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "host-device", "device": %q, "ipam": {"type": "static",
		"addresses": [{"address": "198.51.100.20/24", "gateway": "198.51.100.1"}, {"address": "2001:db8:7::20/64", "gateway": "2001:db8:7::1"}],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}]}`, p.lent)
	attachment, err := podtest.AddCNI(t.Context(), pod.Node, pod.NS, []byte(conf), podtest.Built(t, "cni"), filepath.Join(t.TempDir(), "cache"), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	pod.Interface, pod.MTU = "eth0", 1400
	pod.IPv4, pod.IPv6 = netip.MustParsePrefix("198.51.100.20/24"), netip.MustParsePrefix("2001:db8:7::20/64")
	if pod.MAC, err = net.ParseMAC(attachment.Result.Interfaces[0].Mac); err != nil {
		t.Fatal(err)
	}
	return attachment
}

// deviceOf is what a node's device is like, but for its index and whether it is up, which
// the plugin changes.
func deviceOf(t *testing.T, ns *podtest.NS, name string) string {
	t.Helper()
	var links []map[string]any
	if err := json.Unmarshal([]byte(ns.Run(t, "ip", "-d", "-j", "link", "show", "dev", name)), &links); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ifindex", "flags", "operstate", "qdisc"} {
		delete(links[0], key)
	}
	text, err := json.Marshal(links[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// groups has the network find the guest by addresses that the pod has not: it asks groups
// for them that the guest alone has joined.
func (v *vm) groups(t *testing.T) {
	t.Helper()
	for i := range 4 { // one of them may be of the same bit in the NIC's filter as one of the pod's
		linkLocal := fmt.Sprintf("fe80::%x:1234", 0x10+i)
		v.guest.IP(t, "addr add "+linkLocal+"/64 dev eth0 nodad")
		v.wire.Run(t, "ping", "-c1", "-W20", linkLocal+"%"+v.wire.link)
	}
}
