package prestart_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// A VM whose NIC was given another MAC than the planned one is told of as such.
func TestGuestWithAnotherMAC(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	said := make(chan string, 256)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)
	tap := session.Interfaces()[0].Tap
	err := waitFor(t, h, control.ForLease, 10*time.Second) // on a busy machine the answer takes a while
	if err == nil || !strings.Contains(err.Error(), "eth0: the guest on tap-eth0 has not got "+pod.IPv4.Addr().String()+"/32: it has not asked for it") {
		t.Errorf("of a guest that is not there wait says: %v", err)
	}

	wrong, err := podtest.StartGuest(t.Context(), pod.NS, tap, net.HardwareAddr{0x52, 0x54, 0, 0xaa, 0xbb, 0xcc})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asking := make(chan error, 1)
	go func() {
		_, err := wrong.Udhcpc(ctx)
		asking <- err
	}()
	until(t, said, "interface=eth0 tap="+tap+" protocol=DHCP mac=52:54:00:aa:bb:cc want="+pod.MAC.String()+" remedy=")
	err = waitFor(t, h, control.ForLease, 15*time.Second)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "wait for lease: timed out after 15") {
		t.Errorf("wait says: %v", err)
	}
	for _, want := range []string{"eth0: ", "a guest with MAC 52:54:00:aa:bb:cc asks", "the VM's is " + pod.MAC.String(), "prepare with the MAC 52:54:00:aa:bb:cc and the default datapath"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("wait says: %v\nwant %q in it", err, want)
		}
	}
	l := session.Status().Of("eth0").Lease
	if o := l.OtherSource; o.MAC.String() != "52:54:00:aa:bb:cc" || o.Want.String() != pod.MAC.String() || o.Count == 0 || o.Count != l.Dropped[lease.DropOtherSource] {
		t.Errorf("status is %+v", l)
	}
	cancel()
	if err := <-asking; err == nil {
		t.Error("it got a lease")
	}
	if err := wrong.Close(); err != nil {
		t.Fatal(err)
	}

	right := podtest.NewGuest(t, pod.NS, tap, pod.MAC)
	if _, err := right.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := waitFor(t, h, control.ForLease, time.Minute); err != nil {
		t.Error(err)
	}
	for len(said) > 0 {
		if line := <-said; strings.Contains(line, "another MAC") {
			t.Error("it was said more than once: ", line)
		}
	}
}
