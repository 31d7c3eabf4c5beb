package prestart_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Two interfaces are prepared and served in one call, each with a MAC, names and a
// lease of its own, and the next run takes the pod as it is.
func TestOptionsOfEachInterface(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path(), "link set net1 up", "addr add 10.9.0.7/24 dev net1")
	pod.Node.IP(t, "link set net1 up")
	before := podtest.TakeSnapshot(t, pod.NS)
	own := mac.Addr{0x52, 0x54, 0, 0, 0, 1}
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0", "net1"}, true // nobody is behind net1
	h.Model = "virtio"
	h.PerInterface = map[string]prestart.InterfaceOptions{"net1": {
		// Redirect gives the VM no other MAC.
		Network: &prepare.Options{Datapath: podtest.SwitchPath, MAC: own, Names: map[string]string{"tap": "vm1"}, MTU: 1300},
		Lease:   &prestart.LeaseSettings{Hostname: "other", DNS: []netip.Addr{netip.MustParseAddr("10.9.0.53")}},
		Model:   "e1000e",
	}}
	session := run(t, h)
	nics := session.NICs()
	if n := nics[0]; n.Tap != "tap-eth0" || n.MAC != mac.Of(pod.MAC) || n.Model != "virtio" {
		t.Errorf("eth0 is %+v", n)
	}
	if n := nics[1]; n.Tap != "vm1" || n.MAC != own || n.Model != "e1000e" || n.MTU != 1300 {
		t.Errorf("net1 is %+v", n)
	}
	for i, want := range []map[string]string{
		{"hostname": "vm-7", "dns": "10.96.0.10"},
		{"hostname": "other", "dns": "10.9.0.53", "mtu": "1300"},
	} {
		guest, err := podtest.StartGuest(t.Context(), pod.NS, nics[i].Tap, nics[i].MAC[:])
		if err != nil {
			t.Fatal(err)
		}
		lease, err := guest.Udhcpc(t.Context())
		if err := errors.Join(err, guest.Close()); err != nil {
			t.Fatal(err)
		}
		for key, value := range want {
			if lease[key] != value {
				t.Errorf("the lease of %s has %s %q, want %q", nics[i].Interface, key, lease[key], value)
			}
		}
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := run(t, h).Close(t.Context()); err != nil { // as it is
		t.Fatal(err)
	}
	h.PerInterface = nil
	was := own.String()
	if h.Network.Datapath == redirect {
		was = "datapath was " + podtest.SwitchPath
	}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "net1") || !strings.Contains(err.Error(), was) {
		t.Errorf("without the options of net1: %v", err)
	}
	if networks, err := h.Prepare(t.Context()); err == nil || networks != nil {
		t.Errorf("Prepare returns %+v and %v", networks, err)
	}
	h.PerInterface = map[string]prestart.InterfaceOptions{"net1": {Network: &prepare.Options{Names: map[string]string{"tap": "tap-eth0"}}}}
	if _, err := h.Plan(t.Context()); err == nil || !strings.Contains(err.Error(), "eth0 and net1 would both have a link tap-eth0") {
		t.Errorf("with the other's default name: %v", err)
	}
	h.PerInterface = nil
	h.Force = true // the guest has the tap still
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}
