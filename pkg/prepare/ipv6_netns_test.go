package prepare_test

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A guest that has the pod's IPv6 address and the planned router reaches what
// the pod reached, and is reached there.
func TestIPv6(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			if !pod.IPv6Gateway.IsLinkLocalUnicast() { // so that only we can answer for the one from its MAC
				pod.Node.IP(t, "link set "+pod.NodeLink+" addrgenmode none", "addr add fe80::1/64 dev "+pod.NodeLink+" nodad")
				pod.Node.Run(t, "ip", "-6", "addr", "del", linkLocalOf(t, pod), "dev", pod.NodeLink)
			}
			before := podtest.TakeSnapshot(t, pod.NS)
			dir := t.TempDir()
			var plan prepare.Plan
			pod.In(t, func() (err error) {
				read, err := discover.ReadPod(t.Context(), discover.Options{})
				if err != nil {
					return err
				}
				store, err := prepare.OpenStore(t.Context(), dir)
				if err != nil {
					return err
				}
				defer store.Close()
				if plan, err = prepare.NewPlan(read.Interfaces[0], prepare.Options{}); err != nil {
					return err
				}
				_, _, err = prepare.Apply(t.Context(), nil, store, plan)
				return err
			})
			if plan.NIC().IPv6 == nil || plan.NIC().IPv6.Address != pod.IPv6 || plan.NIC().IPv6.Router == nil {
				t.Fatalf("planned %+v", plan.NIC().IPv6)
			}
			router := plan.NIC().IPv6.Router
			if natural := pod.IPv6Gateway.IsLinkLocalUnicast(); natural != (router.LinkLocal == router.Gateway) || router.MAC.IsZero() {
				t.Errorf("the router is %+v, the gateway %s", router, pod.IPv6Gateway)
			}
			guest := podtest.NewGuest(t, pod.NS, plan.NIC().Tap, pod.MAC)
			guest.IP(t, "addr add "+plan.NIC().IPv6.Address.Addr().String()+"/128 dev eth0", "route add default via "+router.LinkLocal.String()+" dev eth0")
			pod.In(t, func() error { return plan.WaitForwarding(t.Context()) })
			// The node checks its link-local address anew: the link was down.
			for _, ns := range []*podtest.NS{pod.Node, guest.NS} {
				if err := podtest.WaitSettled(t.Context(), ns); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIPv6.String())
				guest.IP(t, "neigh flush all")
			}
			pod.Outside.Run(t, "ping", "-c3", "-i0.2", "-W20", plan.NIC().IPv6.Address.Addr().String())
			pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", plan.NIC().IPv6.Address.Addr().String())
			if out := guest.Run(t, "ip", "-6", "addr", "show", "dev", "eth0"); strings.Contains(out, "dadfailed") {
				t.Errorf("somebody else has the address:\n%s", out)
			}
			pod.In(t, func() error { return prepare.RestoreAll(t.Context(), dir) })
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// linkLocalOf is the address that the node's end of the pod's link was born with.
func linkLocalOf(t *testing.T, pod *podtest.Pod) string {
	t.Helper()
	for word := range strings.FieldsSeq(pod.Node.Run(t, "ip", "-6", "addr", "show", "dev", pod.NodeLink, "scope", "link")) {
		if strings.HasPrefix(word, "fe80::") && word != "fe80::1/64" {
			return word
		}
	}
	t.Fatal("the node has no link-local address")
	return ""
}
