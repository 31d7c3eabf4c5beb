package prestart_test

import (
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// A guest that knows only what it is told, by router advertisement and DHCPv6,
// has the pod's IPv6, and keeps it when nobody serves any more.
func TestGuestHasPodIPv6(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.KindnetDual, podtest.CalicoDual, podtest.BridgeDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			session := run(t, h)
			// The node checks its link-local address anew: the link was down.
			if err := podtest.WaitSettled(t.Context(), pod.Node); err != nil {
				t.Fatal(err)
			}
			guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
			solicitIPv6(t, guest)

			address := pod.IPv6.Addr().String()
			var global []string
			for word := range strings.FieldsSeq(guest.Run(t, "ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global")) {
				if strings.Contains(word, ":") && strings.Contains(word, "/") {
					global = append(global, word)
				}
			}
			if len(global) != 1 || global[0] != address+"/128" {
				t.Errorf("the guest has %v, want %s alone", global, address)
			}
			if routes := guest.Run(t, "ip", "-6", "route", "show", "default"); !strings.Contains(routes, "via fe80::") || !strings.Contains(routes, "proto ra") {
				t.Errorf("the guest's default routes are %q", routes)
			}
			reach := func() {
				t.Helper()
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIPv6.String())
				pod.Outside.Run(t, "ping", "-c3", "-i0.2", "-W20", address)
				pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", address)
			}
			reach()
			status, err := statusOf(t, h)
			if err != nil {
				t.Fatal(err)
			}
			if i := status.Interfaces[0]; i.Lease6 == nil || i.Lease6.State != lease.Bound || i.Router == nil || len(i.Router.Sent) == 0 {
				t.Errorf("status is %+v, %+v", i.Lease6, i.Router)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			guest.IP(t, "neigh flush dev eth0")
			reach()
			h.Force = true // the guest has the tap still
			if _, err := h.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore:\n%s", d)
			}
		})
	}
}

// solicitIPv6 gets the guest its address, as systems that heed the router's M
// flag do, and waits until it can be used.
func solicitIPv6(t *testing.T, guest *podtest.Guest) {
	t.Helper()
	if _, err := guest.Dhclient6(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := podtest.WaitSettled(t.Context(), guest.NS); err != nil {
		t.Fatal(err)
	}
}
