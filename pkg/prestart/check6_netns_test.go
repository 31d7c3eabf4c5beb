package prestart_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// The IPv6 router is proven as the IPv4 gateway is, also where there is no IPv4,
// and also where the VM knows it by another address.
func TestCheckRouter6(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual, podtest.BridgeDual} {
		for name, with4 := range map[string]bool{string(shape): true, string(shape) + " without IPv4": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pod := podtest.NewPod(t, shape)
				if !with4 {
					pod.IP(t, "addr flush to "+pod.IPv4.Addr().String())
				}
				h := newHook(t, pod)
				run(t, h)
				reports, err := h.Check(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				r := reports[0]
				links := pod.Node.Run(t, "ip", "link")
				if r.Advertised == 0 || r.Resolved6 == 0 || !r.Router6.IsLinkLocalUnicast() || !strings.Contains(links, "ether "+r.Router6MAC.String()) {
					t.Errorf("the router is %s at %q, which nobody on the node is: %+v", r.Router6, r.Router6MAC, r)
				}
				if (r.Offered > 0 && r.Resolved > 0) != with4 {
					t.Errorf("the report is %+v", r)
				}
				pod.Node.IP(t, "addr flush to "+pod.IPv6Gateway.String())
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				if _, err := h.Check(ctx); err == nil || !strings.Contains(err.Error(), "resolve the router "+pod.IPv6Gateway.String()) {
					t.Errorf("the gateway is gone, and check says: %v", err)
				}
			})
		}
	}
}

// A gateway that has got another MAC is found where it is.
func TestCheckRouterMoved(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	h := newHook(t, pod)
	run(t, h)
	pod.Node.IP(t, "link set "+pod.NodeLink+" addrgenmode none", "link set "+pod.NodeLink+" address 02:00:00:00:00:99")
	reports, err := h.Check(t.Context())
	if err != nil || reports[0].Router6MAC.String() != "02:00:00:00:00:99" {
		t.Errorf("the report is %+v, error %v", reports, err)
	}
}
