package prestart_test

import (
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// expected are what a guest that means no harm causes; docs/operations.md says
// the same.
var expected = map[prepare.Reason]bool{
	"dhcp-client": true, "router-solicitation": true, "no-ipv4": true, "no-ipv6": true, "other-protocol": true,
}

// TestHealthyGuest has a Linux guest do on each pod what guests do: no counter that
// an alert looks at moves.
func TestHealthyGuest(t *testing.T) {
	t.Parallel()
	for _, shape := range podtest.Shapes() {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			p := newHostilePod(t, shape, prestart.Hook{})
			if err := p.tap.Close(); err != nil {
				t.Fatal(err)
			}
			guest := podtest.NewGuest(t, p.pod.NS, "tap-"+p.pod.Interface, p.pod.MAC)
			if p.pod.IPv4.IsValid() {
				if _, err := guest.Udhcpc(t.Context()); err != nil {
					t.Fatal(err)
				}
				// Joins a group, as who speaks mDNS does, announces and probes its address.
				guest.Run(t, "ip", "addr", "add", "224.0.0.251/32", "dev", "eth0", "autojoin")
				_, _ = guest.Output(t.Context(), "arping", "-c1", "-w1", "-U", "-I", "eth0", p.pod.IPv4.Addr().String())
				_, _ = guest.Output(t.Context(), "arping", "-c1", "-w1", "-D", "-I", "eth0", p.pod.IPv4.Addr().String())
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
			}
			if p.pod.IPv6.IsValid() {
				if _, err := guest.Dhclient6(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := podtest.WaitRouter(t.Context(), guest.NS); err != nil {
					t.Fatal(err)
				}
				guest.Run(t, "ip", "addr", "add", "ff02::fb/128", "dev", "eth0", "autojoin", "nodad")
				if err := podtest.WaitSettled(t.Context(), guest.NS); err != nil { // the address is no duplicate
					t.Fatal(err)
				}
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIPv6.String())
			}
			if err := podtest.WaitSettled(t.Context(), guest.NS); err != nil { // its link-local address is no duplicate
				t.Fatal(err)
			}
			counters := p.counters(t, "from_guest")
			for reason, n := range counters {
				if n > 0 && !expected[reason] {
					t.Errorf("%d frames were counted as %s", n, reason)
				}
			}
			if n := counters["dhcp-client"] + counters["no-ipv6"]; n == 0 && shape != podtest.L2 {
				t.Error("the guest's DHCP was counted nowhere")
			}
		})
	}
}
