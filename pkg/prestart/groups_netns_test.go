package prestart_test

import (
	"fmt"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A pod interface that lets through only the multicast groups that the pod has joined lets
// through the VM's, too, while the VM is served by redirect.
func TestGroupsOfVM(t *testing.T) {
	t.Parallel()
	pod := podtest.NewBarePod(t)
	pod.Node.IP(t, "link add link uplink0 name eth0 netns "+pod.Path()+" "+podtest.Macvlan)
	pod.IP(t, "addr add 192.0.2.20/24 dev eth0", "addr add 2001:db8::20/64 dev eth0", "link set eth0 up", "route add default via "+podtest.OutsideIP.String())
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Network.Datapath = redirect
	session := run(t, h)
	guest := podtest.NewPlainGuest(t, pod.NS, session.Interfaces()[0].Tap, session.Interfaces()[0].MAC.HardwareAddr())
	guest.IP(t, "link set eth0 up")
	// To find the guest, others ask a group of each address. Of the one that is made of the
	// MAC, which is the pod's, too, the pod has joined it; any other may be of the same bit in
	// the interface's filter, but not each.
	for i := range 4 {
		linkLocal := fmt.Sprintf("fe80::%x:1234", 0x10+i)
		guest.IP(t, "addr add "+linkLocal+"/64 dev eth0 nodad")
		pod.Outside.Run(t, "ping", "-c1", "-W20", linkLocal+"%eth0")
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Force = true // the guest has the tap still
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("afterwards:\n%s", d)
	}
}

// A pod interface that is gone keeps nobody from serving the VM, who is told of it.
func TestGroupsOfInterfaceThatIsGone(t *testing.T) {
	t.Parallel()
	pod := podtest.NewBarePod(t)
	pod.Node.IP(t, "link add link uplink0 name eth0 netns "+pod.Path()+" "+podtest.Macvlan)
	pod.IP(t, "addr add 192.0.2.20/24 dev eth0", "link set eth0 up", "route add default via "+podtest.OutsideIP.String())
	h := newHook(t, pod)
	h.Network.Datapath = redirect
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "link del eth0")
	h.NoIdentity, h.Interfaces = true, nil
	h.ResolvConf, h.Network, h.Lease = "", prepare.Options{}, prestart.LeaseSettings{}
	session, err := h.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(t.Context())
	if err := session.Add(t.Context(), "eth0", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	if served := session.Status().Of("eth0"); served.Error != "" || len(served.Differences) == 0 {
		t.Errorf("it is served: %+v", served)
	}
}
