package prestart_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
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
	h.OutputDir = t.TempDir()
	session := run(t, h)

	other := h
	other.OutputDir = ""
	other.Network = prepare.Options{Datapath: "redirect"}
	if err := other.Network.VMPorts.UnmarshalText([]byte("22,80")); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	wants := []string{"the ports that the pod keeps have changed", "wrote the changed ports"}
	for late := time.After(time.Minute); len(wants) > 0; { // whichever is said first
		select {
		case line := <-said:
			wants = slices.DeleteFunc(wants, func(want string) bool { return strings.Contains(line, want) })
		case <-late:
			t.Fatalf("nothing says %q", wants)
		}
	}
	nics, err := os.ReadFile(filepath.Join(h.OutputDir, prestart.NICsFile))
	if err != nil || !strings.Contains(string(nics), `"vmPorts": "22,80"`) || strings.Contains(string(nics), "podPorts") {
		t.Errorf("the NICs file has %s, error %v", nics, err)
	}
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

// Ports that are changed again and again make a VM's network never not ready, nor does the
// log say so, whenever one looks.
func TestPortsChangeOften(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.Network = prepare.Options{Datapath: "redirect"}
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	session := run(t, h)
	prepared := make(chan error, 1)
	go func() {
		var err error
		for i := range 80 {
			other := h
			other.Log = nil
			if err = other.Network.PodPorts.UnmarshalText([]byte(strconv.Itoa(8080 + i%5))); err != nil {
				break
			}
			if _, err = other.Prepare(t.Context()); err != nil {
				break
			}
		}
		prepared <- err
	}()
	looks := time.NewTicker(27 * time.Millisecond) // ports have changed more than once by then
	defer looks.Stop()
	for {
		select {
		case <-looks.C:
			if d := session.Status().Of("eth0").Differences; len(d) > 0 {
				t.Fatalf("it differs: %v", d)
			}
		case err := <-prepared:
			if err != nil {
				t.Fatal(err)
			}
			log.Wait(t, "podPorts=8084")
			if strings.Contains(log.String(), "not as planned") {
				t.Errorf("it logs\n%s", &log)
			}
			pod.Run(t, "nft", "flush", "chain", "netdev", "virt-launcher-net-eth0", "to_net_ip")
			log.Wait(t, "not as planned")
			return
		}
	}
}

// The pod's interface is not changed by redirect, so no prepare puts it right: what
// status says to do does.
func TestRedirectedInterfaceChanged(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.Network = prepare.Options{Datapath: "redirect"}
	session := run(t, h)
	for _, c := range []struct{ do, is, remedy string }{
		{"link set eth0 address 02:00:00:00:00:99", "of MAC 02:00:00:00:00:99", "ip link set eth0 address " + pod.MAC.String()},
		{"link set eth0 down", "down", "ip link set eth0 up, and give the pod its routes again"},
	} {
		pod.IP(t, c.do)
		d := session.Status().Of("eth0").Differences
		if len(d) != 1 || d[0].Is != c.is || !strings.HasPrefix(d[0].Remedy, c.remedy) {
			t.Fatalf("after %s it says %+v", c.do, d)
		}
		line, _, _ := strings.Cut(strings.TrimPrefix(d[0].Remedy, "ip "), ",")
		pod.IP(t, line)
		if d := session.Status().Of("eth0").Differences; len(d) != 0 {
			t.Errorf("after %s it says %+v", line, d)
		}
	}
	pod.IP(t, "link set eth0 down", "link set eth0 name net9")
	if _, err := h.Prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "eth0 is called net9 now: ip link set net9 name eth0") {
		t.Errorf("prepare says: %v", err)
	}
}
