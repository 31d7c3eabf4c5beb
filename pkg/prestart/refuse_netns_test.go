package prestart_test

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A pod interface that a VM can't be bridged to is refused before the first
// change, by plan in the same words.
func TestRefusedInterfaces(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		make []string // ip(8) lines in the pod
		want []string
		by   string // the datapath that refuses it; empty: each
	}{
		{
			"macvlan",
			[]string{"link add parent type veth peer name peer", "link set parent up", "link add net0 link parent " + podtest.Macvlan},
			[]string{"it is a macvlan", "only frames for its own MAC", "veth-based network"},
			podtest.SwitchPath,
		},
		{
			"macvtap",
			[]string{"link add parent type veth peer name peer", "link set parent up", "link add net0 link parent " + podtest.Macvtap},
			[]string{"it is a macvtap", "only frames for its own MAC", "veth-based network"},
			podtest.SwitchPath,
		},
		{
			"port of a switch",
			[]string{"link add br7 " + podtest.Switch, "link add net0 type veth peer name peer", "link set net0 master br7"},
			[]string{podtest.SwitchKind, "br7", "ip link set net0 nomaster"},
			"",
		},
		{
			"switch",
			[]string{"link add net0 " + podtest.Switch},
			[]string{"it is a " + podtest.SwitchKind, "state directory"},
			"",
		},
		{
			"layer 3",
			[]string{"tuntap add dev net0 mode tun"},
			[]string{"without Ethernet frames", "netkit's L2 mode"},
			"",
		},
		{
			"no ARP",
			[]string{"link add net0 type veth peer name peer", "link set net0 arp off"},
			[]string{"ARP is off", "set the CNI to veth"},
			"",
		},
		{
			"loopback",
			[]string{"link add net0 type veth peer name peer"},
			[]string{"it is the loopback", "name the pod's interface"},
			"",
		},
	} {
		if c.by != "" && c.by != podtest.Datapath(t) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewBarePod(t)
			pod.IP(t, append(c.make, "addr add 10.9.0.7/24 dev net0", "link set net0 up", "addr add 10.9.1.7/32 dev lo")...)
			h := newHook(t, pod)
			h.Interfaces = []string{"net0"}
			if c.name == "loopback" {
				h.Interfaces = []string{"lo"}
			}
			before := podtest.TakeSnapshot(t, pod.NS)
			_, planned := h.Plan(t.Context())
			_, applied := h.Run(t.Context())
			if planned == nil || applied == nil || planned.Error() != applied.Error() {
				t.Errorf("plan says %v, run says %v", planned, applied)
			}
			for _, want := range c.want {
				if applied == nil || !strings.Contains(applied.Error(), want) {
					t.Errorf("no %q in: %v", want, applied)
				}
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("afterwards:\n%s", d)
			}
		})
	}
}
