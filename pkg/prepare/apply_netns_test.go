package prepare_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// settled is a snapshot taken once no IPv6 address is tentative any more.
func settled(t *testing.T, ns *podtest.NS) string {
	t.Helper()
	if err := podtest.WaitSettled(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	return podtest.TakeSnapshot(t, ns)
}

// inPod runs fn in the namespace and ends the test on error.
func inPod(t *testing.T, ns *podtest.NS, fn func() error) {
	t.Helper()
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

// apply plans and applies one interface as virt-launcher-net does: from the
// record if there is one.
func apply(ctx context.Context, dir, name string, o prepare.Options) (prepare.Plan, error) {
	store, err := prepare.OpenStore(ctx, dir)
	if err != nil {
		return prepare.Plan{}, err
	}
	defer store.Close()
	recorded, err := store.Plans(slog.New(slog.DiscardHandler))
	if err != nil {
		return prepare.Plan{}, err
	}
	var in discover.Interface
	for _, p := range recorded {
		if p.Interface.Name == name {
			in = p.Interface
		}
	}
	if in.Name == "" {
		all, err := discover.ReadInterfaces()
		if err != nil {
			return prepare.Plan{}, err
		}
		for _, candidate := range all {
			if candidate.Name == name {
				in = candidate
			}
		}
	}
	plan, err := prepare.NewPlan(in, o)
	if err != nil {
		return prepare.Plan{}, err
	}
	return plan, prepare.Apply(ctx, nil, store, plan)
}

func restore(ctx context.Context, dir string) error {
	store, err := prepare.OpenStore(ctx, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return prepare.Restore(ctx, nil, store)
}

func TestApplyAndRestore(t *testing.T) {
	for _, shape := range podtest.Shapes() {
		t.Run(string(shape), func(t *testing.T) {
			pod := podtest.NewPod(t, shape)
			dir := t.TempDir()
			before := settled(t, pod.Pod)
			var plan prepare.Plan
			inPod(t, pod.Pod, func() (err error) {
				plan, err = apply(t.Context(), dir, pod.Interface, prepare.Options{})
				return err
			})
			once := settled(t, pod.Pod)
			if once == before {
				t.Fatal("apply changed nothing")
			}
			inPod(t, pod.Pod, func() error {
				_, err := apply(t.Context(), dir, pod.Interface, prepare.Options{})
				return err
			})
			if d := podtest.Diff(once, settled(t, pod.Pod)); d != "" {
				t.Errorf("a second apply changed:\n%s", d)
			}
			links := pod.Pod.Run(t, "ip", "-d", "link")
			for _, want := range []string{
				plan.Bridge.Uplink, "tap-eth0", "master br-eth0", "learning off",
			} {
				if !strings.Contains(links, want) {
					t.Errorf("no %q in\n%s", want, links)
				}
			}
			for range 2 {
				inPod(t, pod.Pod, func() error { return restore(t.Context(), dir) })
				if d := podtest.Diff(before, settled(t, pod.Pod)); d != "" {
					t.Errorf("after restore:\n%s", d)
				}
			}
		})
	}
}

func ExampleNewPlan() {
	in := discover.Interface{
		Name: "eth0", Index: 2, Kind: "veth", MAC: discover.HardwareAddr{0x0a, 0x58, 0x0a, 0xf4, 1, 7}, MTU: 1450,
		Up: true, ARP: true, Ethernet: true,
	}
	plan, err := prepare.NewPlan(in, prepare.Options{NoGuard: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(plan)
	// Output:
	// ip tuntap add dev tap-eth0 mode tap vnet_hdr
	// ip link set tap-eth0 address 2e:b9:73:4a:31:40
	// ip link set tap-eth0 mtu 1450
	// ip link set tap-eth0 addrgenmode none
	// ip link add br-eth0 address 42:ba:29:d3:b2:85 mtu 1450 arp off type bridge stp_state 0 forward_delay 0 mcast_snooping 0
	// ip link set br-eth0 addrgenmode none
	// ip link set br-eth0 up
	// ip link set tap-eth0 master br-eth0
	// ip link set tap-eth0 up
	// ip link set eth0 down
	// ip link set eth0 name up-eth0
	// ip link set up-eth0 address da:f3:80:ac:4d:f9
	// ip link set up-eth0 addrgenmode none
	// ip link set up-eth0 master br-eth0
	// bridge link set dev up-eth0 learning off
	// ip link set up-eth0 up
	// ip link add eth0 mtu 1450 arp off type bridge stp_state 0 forward_delay 0 mcast_snooping 0
	// ip link set eth0 addrgenmode none
	// ip link set eth0 up
}
