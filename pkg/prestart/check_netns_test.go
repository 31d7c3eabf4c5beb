package prestart_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Of two gateways the guest is told of the better one, and that one is proven:
// the other may be dead.
func TestCheckAsksForTheGatewayOfTheLease(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.IP(t, "route add default via 10.244.1.99 dev eth0 metric 500")
	h := newHook(t, pod)
	run(t, h)
	reports, err := h.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := reports[0].Gateway; got != pod.Gateway {
		t.Errorf("resolved %s, want %s", got, pod.Gateway)
	}
}

// A check that gets no answer says that nobody serves, if so.
func TestCheckUnserved(t *testing.T) {
	t.Parallel()
	for _, shape := range []podtest.Shape{podtest.Calico, podtest.CalicoDual} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			h := newHook(t, podtest.NewPod(t, shape))
			if _, err := h.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			_, err := h.Check(t.Context())
			if !errors.Is(err, control.ErrNobodyServes) || !strings.Contains(err.Error(), "got no offer: no answer: not within 5s") || !strings.Contains(err.Error(), "start a server") {
				t.Errorf("got error %v", err)
			}
		})
	}
}

// A reply is fitted to the link's MTU, down to the least that a message has.
// Below that the check says so.
func TestSmallMTU(t *testing.T) {
	t.Parallel()
	for mtu, want := range map[int]string{
		400: "",
		328: "", // 300 bytes of BOOTP (RFC 951) with their headers
		327: "a reply of 328 bytes does not pass the MTU of tap-eth0, 327: raise it",
		68:  "a reply of 328 bytes does not pass the MTU of tap-eth0, 68: raise it",
	} {
		t.Run(strconv.Itoa(mtu), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Calico)
			h := newHook(t, pod)
			h.Network.MTU = mtu
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			session, err := h.Run(ctx)
			if want != "" {
				if err == nil || !strings.Contains(err.Error(), "got no offer") || !strings.Contains(err.Error(), want) {
					t.Errorf("got error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
			lease, err := guest.Udhcpc(t.Context())
			if err != nil || lease["ip"] != pod.IPv4.Addr().String() || lease["mtu"] != strconv.Itoa(mtu) {
				t.Errorf("lease %v, error %v", lease, err)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Without a gateway that answers the start is refused, and says what was tried.
func TestCheckFails(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.Node.IP(t, "addr flush to "+pod.Gateway.String())
	h := newHook(t, pod)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := h.Run(ctx)
	if err == nil || !strings.Contains(err.Error(), "resolve the gateway 10.244.1.1 by ARP") || !isCheckError(err, "eth0") {
		t.Errorf("got error %v", err)
	}
}

func isCheckError(err error, name string) bool {
	e, ok := errors.AsType[*prestart.CheckError](err)
	return ok && e.Interface == name
}

// While nobody is given the address, since the VM has declined it, a check says so.
func TestCheckOfDeclinedAddress(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	session := run(t, h)
	pod.Node.IP(t, "addr add "+pod.IPv4.Addr().String()+" dev "+pod.NodeLink) // the node has it, too
	guest, err := podtest.StartGuest(t.Context(), pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := session.Events(ctx)
	probing := guest.Command(ctx, "busybox", "udhcpc", "-i", "eth0", "-f", "-q", "-a", "-s", "/bin/true")
	if err := probing.Start(); err != nil {
		t.Fatal(err)
	}
	for e := range events {
		if e.Lease != nil && e.Lease.Type == lease.EventDeclined {
			break
		}
	}
	cancel()
	_ = probing.Wait()
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	podtest.WaitReleased(pod.NS, "tap-eth0")
	_, err = h.Check(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the VM has declined "+pod.IPv4.Addr().String()) || !strings.Contains(err.Error(), "arping -D") {
		t.Errorf("got error %v", err)
	}
}
