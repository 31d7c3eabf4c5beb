package prepare_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A further datapath needs a file of its own and a line in the table, and nothing else:
// it is applied twice, carries frames, is repaired and put back.
func TestToyDatapath(t *testing.T) {
	for _, shape := range []podtest.Shape{podtest.Flannel, podtest.Calico} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			dir := t.TempDir()
			again := func() error {
				return prepare.ApplyAll(t.Context(), dir, prepare.Options{Datapath: "toy", NoGuard: true}, pod.Interface)
			}
			before := podtest.TakeSnapshot(t, pod.NS)
			pod.In(t, again)
			once := podtest.TakeSnapshot(t, pod.NS)
			pod.In(t, again)
			if d := podtest.Diff(once, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("a second apply changed:\n%s", d)
			}
			pod.Run(t, "nft", "delete", "table", "netdev", "virt-launcher-net-eth0")
			pod.Run(t, "ip", "link", "set", "tap-eth0", "down")
			pod.In(t, again)
			if d := podtest.Diff(once, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("not repaired:\n%s", d)
			}

			vm := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
			vm.Run(t, "ip", "addr", "add", pod.IPv4.String(), "dev", "eth0")
			vm.Run(t, "ip", "route", "add", "default", "via", pod.Gateway.String(), "dev", "eth0", "onlink")
			pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())

			pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// A name for a link that a datapath does not have is refused, not forgotten.
func TestToyDatapathHasNoSwitch(t *testing.T) {
	in := discover.Interface{Name: "eth0", Ethernet: true, MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500}
	o := prepare.Options{Datapath: "toy", NoGuard: true, Names: map[string]string{"tap": "vm0", podtest.SwitchRole: ""}}
	if _, err := prepare.NewPlan(in, o); err != nil {
		t.Error(err)
	}
	o.Names[podtest.SwitchRole] = "br0"
	if _, err := prepare.NewPlan(in, o); err == nil || !strings.Contains(err.Error(), "no link "+podtest.SwitchRole) {
		t.Errorf("a name for a switch that is not there: %v", err)
	}
}

// A datapath without a port guard says so, and does not blame the interface.
func TestToyDatapathHasNoGuard(t *testing.T) {
	in := discover.Interface{Name: "eth0", Ethernet: true, MAC: mac.Addr{2, 0, 0, 0, 0, 1}, MTU: 1500}
	_, err := prepare.NewPlan(in, prepare.Options{Datapath: "toy"})
	if _, blamed := errors.AsType[*prepare.UnusableError](err); err == nil || blamed || !strings.Contains(err.Error(), "no port guard") {
		t.Errorf("with a port guard: %v", err)
	}
}
