package prestart_test

import (
	"context"
	"net/netip"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A gateway that has another MAC under a running VM, as after a failover, is found again
// by the guest itself: nothing that is told to it, or answered for the gateway, has the
// MAC of before. A further advertisement does not undo that.
func TestGatewayWithAnotherMAC(t *testing.T) {
	t.Parallel()
	for shape, device := range map[podtest.Shape]string{
		podtest.KindnetDual: "", podtest.CalicoDual: "", podtest.BridgeDual: "cni0", podtest.Cilium: "",
	} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			h := newHook(t, pod)
			session := run(t, h)
			guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
			if _, err := guest.Udhcpc(t.Context()); err != nil {
				t.Fatal(err)
			}
			outside := []netip.Addr{podtest.OutsideIP}
			if pod.IPv6.IsValid() {
				solicitIPv6(t, guest)
				outside = append(outside, podtest.OutsideIPv6)
			}
			for _, family := range []string{"ipv4", "ipv6"} { // as long as a test may take
				for key, value := range map[string]string{"base_reachable_time_ms": "1000", "delay_first_probe_time": "1", "retrans_time_ms": "200", "gc_stale_time": "1"} {
					if err := guest.Sysctl("net/"+family+"/neigh/eth0/"+key, value); err != nil {
						t.Fatal(err)
					}
				}
			}
			reaches := func(when string) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
				defer cancel()
				for _, to := range outside {
					for {
						if _, err := guest.Output(ctx, "ping", "-c1", "-W1", to.String()); err == nil {
							break
						} else if ctx.Err() != nil {
							t.Errorf("%s the guest does not reach %s: %v\n%s%s", when, to, err, guest.Run(t, "ip", "-6", "route"), guest.Run(t, "ip", "neigh"))
							break
						}
					}
				}
			}
			reaches("at first")
			if device == "" {
				device = pod.NodeLink
			}
			pod.Node.IP(t, "link set "+device+" address 02:00:00:00:0a:0b")
			reaches("when the gateway has another MAC")
			if pod.IPv6.IsValid() {
				solicitIPv6(t, guest)
				reaches("when the router was advertised again")
			}
			if found := session.Status().Of("eth0").Differences; len(found) > 0 {
				t.Errorf("it is a difference: %v", found)
			}
		})
	}
}
