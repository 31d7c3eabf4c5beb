package prestart_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A session takes over the ports that a prepare beside it shares otherwise: it is ready,
// counts by the new rules, and notices if those are changed.
func TestPortsChangeUnderASession(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.Network = prepare.Options{Datapath: "redirect"}
	if err := h.Network.PodPorts.UnmarshalText([]byte("8080")); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 256)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)

	other := h
	other.Network = prepare.Options{Datapath: "redirect"}
	if err := other.Network.VMPorts.UnmarshalText([]byte("22,80")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, said, "shared otherwise")
	if err := waitFor(t, h, control.ForNetwork, time.Minute); err != nil {
		t.Error(err)
	}
	if got := session.Interfaces()[0]; got.VMPorts.String() != "22,80" || !got.PodPorts.IsZero() {
		t.Errorf("ports of the VM are %q, of the pod %q", got.VMPorts, got.PodPorts)
	}
	if _, err := session.GuardCounters(); err != nil {
		t.Error(err)
	}
	for len(said) > 0 {
		if line := <-said; strings.Contains(line, "not as planned") {
			t.Error("it was said: ", line)
		}
	}

	pod.Run(t, "nft", "flush", "chain", "netdev", "virt-launcher-net-eth0", "to_net_ip")
	until(t, said, "not as planned")
	if _, err := other.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, said, "as planned again")
	if d := session.Status().Of("eth0").Differences; !slices.Equal(d, nil) {
		t.Errorf("it differs: %v", d)
	}
}
