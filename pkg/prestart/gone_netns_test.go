package prestart_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// askFor is a guest's question for a lease, which it does not take.
func askFor(t *testing.T, pod *podtest.Pod, modifiers ...dhcpv4.Modifier) []byte {
	t.Helper()
	m, err := dhcpv4.NewDiscovery(pod.MAC, modifiers...)
	if err != nil {
		t.Fatal(err)
	}
	return podtest.UDPFrame(pod.MAC, packet.Broadcast[:], netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes())
}

// untilLost waits until a session says that no VM has the tap open, which the kernel tells
// a moment later.
func untilLost(t *testing.T, h prestart.Hook, session *prestart.Session) {
	t.Helper()
	start := time.Now()
	for !strings.Contains(session.Status().NoLease(), "no VM has tap-eth0 open") {
		if time.Since(start) > podtest.Patience {
			t.Fatalf("no VM has the tap open, and of the lease is said %q", session.Status().NoLease())
		}
	}
	if why := session.Status().NotReady(); why != "" {
		t.Errorf("a guest could boot, and yet %s", why)
	}
	if err := waitFor(t, h, control.ForLease, time.Second); err == nil || !strings.Contains(err.Error(), "no VM has tap-eth0 open") {
		t.Errorf("who waits for the lease while no VM has the tap open is told %v", err)
	}
	if err := waitFor(t, h, control.ForNetwork, time.Minute); err != nil {
		t.Error(err)
	}
}

// Who waits for the lease waits for a guest that is there: while no VM has the tap open the
// lease is kept, also by the next server, and counts when the tap is opened again, as by a
// VM that is resumed and never asks, until a guest asks anew.
func TestLeaseOfVMThatIsGone(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{podtest.SwitchPath, "redirect"} {
		for _, family := range []string{"IPv4", "IPv6"} {
			t.Run(datapath+" "+family, func(t *testing.T) {
				t.Parallel()
				pod := podtest.NewPod(t, podtest.KindnetDual)
				boot := func(guest *podtest.Guest) {
					t.Helper()
					if _, err := guest.Udhcpc(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if family == "IPv6" {
					pod.Run(t, "ip", "-4", "addr", "flush", "dev", pod.Interface)
					pod.Run(t, "ip", "-4", "route", "flush", "table", "main")
					boot = func(guest *podtest.Guest) { solicitIPv6(t, guest) }
				}
				h := newHook(t, pod)
				h.Network.Datapath = datapath
				session := run(t, h)
				guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
				if err != nil {
					t.Fatal(err)
				}
				boot(guest)
				if err := session.WaitLease(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := guest.Close(); err != nil {
					t.Fatal(err)
				}
				untilLost(t, h, session)

				waiting := make(chan error)
				wait := func(session *prestart.Session) { waiting <- session.WaitLease(t.Context()) }
				resumed := func() {
					t.Helper()
					tap, err := podtest.OpenTap(pod.NS, "tap-eth0", 1)
					if err != nil {
						t.Fatal(err)
					}
					if err := <-waiting; err != nil {
						t.Error(err)
					}
					if err := waitFor(t, h, control.ForLease, time.Minute); err != nil {
						t.Error(err)
					}
					if err := tap.Close(); err != nil {
						t.Fatal(err)
					}
				}
				go wait(session)
				resumed()
				untilLost(t, h, session)

				// The next server, which is started while no VM is there.
				if err := session.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				session = run(t, h)
				if why := session.Status().NoLease(); !strings.Contains(why, "no VM has tap-eth0 open") {
					t.Errorf("after its own check, of the lease it says %q", why)
				}
				untilLost(t, h, session)
				go wait(session)
				resumed()
				untilLost(t, h, session)
			})
		}
	}
}

// A guest that boots on the tap of one that is gone has no lease from when it asks until it
// takes one.
func TestNextGuestBoots(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	session := run(t, h)
	guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	untilLost(t, h, session)
	nic := podtest.NewNIC(t, pod.NS, "tap-eth0")
	offered := session.Events(t.Context())
	nic.Send(askFor(t, pod))
	for e := range offered {
		if e.Lease != nil && e.Lease.Type == lease.EventOffered {
			break
		}
	}
	if why := session.Status().NoLease(); !strings.Contains(why, "it was offered, but the guest has not requested it") {
		t.Errorf("of a guest that has asked, and has not taken the lease, it says %q", why)
	}
	if err := nic.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC).Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := session.WaitLease(t.Context()); err != nil {
		t.Error(err)
	}
}

// A tap with several queues is closed when the last one is.
func TestLastQueueIsClosed(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.Network.Queues = 2
	session := run(t, h)
	taps := make([]*podtest.Tap, 2)
	for i := range taps {
		var err error
		if taps[i], err = podtest.OpenTap(pod.NS, "tap-eth0", 2); err != nil {
			t.Fatal(err)
		}
	}
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	if _, err := taps[0].Write(askFor(t, pod, dhcpv4.WithGeneric(dhcpv4.OptionRapidCommit, nil))); err != nil {
		t.Fatal(err)
	}
	wait := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
		defer cancel()
		if err := session.WaitLease(ctx); err != nil {
			t.Error(err)
		}
	}
	wait()
	if err := taps[0].Close(); err != nil {
		t.Fatal(err)
	}
	wait()
	if err := taps[1].Close(); err != nil {
		t.Fatal(err)
	}
	untilLost(t, h, session)
}
