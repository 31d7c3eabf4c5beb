package prepare_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// What an admin, or another program, may have set of ports and their switch so that the VM
// loses its network, or the network suffers, is told, and mended.
func TestToggles(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	dir := t.TempDir()
	apply := func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{}, "eth0") }
	pod.In(t, apply)
	differences := func() (all string) {
		pod.In(t, func() error {
			plans, err := prepare.ReadPlans(nil, dir)
			if err != nil {
				return err
			}
			found, err := prepare.Differences(plans...)
			for _, d := range found {
				all += d.String() + ": " + d.Remedy + "\n"
			}
			return err
		})
		return all
	}
	want := podtest.TakeSnapshot(t, pod.NS)
	for set, says := range map[string]string{
		"ip link set up-eth0 type bridge_slave learning on":             "up-eth0 is a port with learning on, not off",
		"ip link set up-eth0 type bridge_slave flood off":               "up-eth0 is a port with flood off, not on",
		"ip link set tap-eth0 type bridge_slave flood off":              "tap-eth0 is a port with flood off, not on",
		"ip link set tap-eth0 type bridge_slave mcast_flood off":        "tap-eth0 is a port with mcast_flood off, not on",
		"ip link set up-eth0 type bridge_slave bcast_flood off":         "up-eth0 is a port with bcast_flood off, not on",
		"ip link set up-eth0 type bridge_slave isolated on":             "up-eth0 is a port with isolated on, not off",
		"ip link set up-eth0 type bridge_slave locked on":               "up-eth0 is a port with locked on, not off",
		"ip link set up-eth0 type bridge_slave hairpin on":              "up-eth0 is a port with hairpin on, not off",
		"ip link set up-eth0 type bridge_slave proxy_arp on":            "up-eth0 is a port with proxy_arp on, not off",
		"ip link set tap-eth0 type bridge_slave neigh_suppress on":      "tap-eth0 is a port with neigh_suppress on, not off",
		podtest.SetPort + " up-eth0 state 0":                            "up-eth0 is disabled, not forwarding",
		"ip link set br-eth0 " + podtest.Switch + " stp_state 1":        "br-eth0 is a " + podtest.SwitchKind + " with stp_state on, not off",
		"ip link set br-eth0 " + podtest.Switch + " vlan_filtering 1":   "br-eth0 is a " + podtest.SwitchKind + " with vlan_filtering on, not off",
		"ip link set br-eth0 " + podtest.Switch + " mcast_snooping 1":   "br-eth0 is a " + podtest.SwitchKind + " with mcast_snooping on, not off",
		"ip link set br-eth0 " + podtest.Switch + " nf_call_iptables 1": "br-eth0 is a " + podtest.SwitchKind + " with nf_call_iptables on, not off",
	} {
		words := strings.Fields(set)
		if _, err := pod.Output(t.Context(), words[0], words[1:]...); err != nil && strings.Contains(err.Error(), "Operation not supported") {
			t.Logf("this kernel does not have it: %s", set)
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if got := differences(); !strings.Contains(got, says+": run virt-launcher-net prepare") {
			t.Errorf("after %s:\n%s, not %s", set, got, says)
		}
		pod.In(t, apply)
		if got := differences(); got != "" {
			t.Errorf("after %s and apply:\n%s", set, got)
		}
	}
	pod.IP(t, "link set br-eth0 "+podtest.Switch+" forward_delay 0") // which stp_state 1 has set, and matters with it alone
	if d := podtest.Diff(want, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after all that and apply:\n%s", d)
	}
}

// A tap with several queues can be opened by two VMs, each of which then gets some of the
// frames.
func TestTwoVMs(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	dir := t.TempDir()
	pod.In(t, func() error { return prepare.ApplyAll(t.Context(), dir, prepare.Options{Queues: 2}, "eth0") })
	for n, want := range []string{"", "tap-eth0 is open with 4 queues, not with the 2 of one VM"} {
		tap, err := podtest.OpenTap(pod.NS, "tap-eth0", 2)
		if err != nil {
			t.Fatal(err)
		}
		defer tap.Close()
		pod.In(t, func() error {
			plans, err := prepare.ReadPlans(nil, dir)
			if err != nil {
				return err
			}
			found, err := prepare.Differences(plans...)
			if got := slices.ContainsFunc(found, func(d prepare.Difference) bool { return d.String() == want }); got != (want != "") {
				t.Errorf("with %d VMs: %v", n+1, found)
			}
			return err
		})
	}
}
