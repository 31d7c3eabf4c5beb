package prestart_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// newHook is a hook for the pod, with a resolv.conf as kubelet writes it.
func newHook(t *testing.T, pod *podtest.Pod) prestart.Hook {
	t.Helper()
	dir := t.TempDir()
	resolvConf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("search default.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return prestart.Hook{
		Netns: pod.Path(), StateDir: filepath.Join(dir, "state"), ResolvConf: resolvConf,
		Lease:   prestart.LeaseSettings{Hostname: "vm-7"},
		Network: prepare.Options{Datapath: podtest.Datapath(t)},
	}
}

func run(t *testing.T, h prestart.Hook) *prestart.Session {
	t.Helper()
	session, err := h.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, network := range session.Interfaces() {
		if want := h.Network.Datapath; want != "" && h.PerInterface == nil && network.Datapath != want {
			t.Errorf("%s is prepared by %q, not by the datapath %s", network.Interface, network.Datapath, want)
		}
	}
	if pod, err := podtest.OpenNS(h.Netns); err == nil && !h.SkipCheck { // which had the taps, in a process that starts others
		for _, network := range session.Interfaces() {
			podtest.WaitReleased(pod, network.Tap)
		}
		_ = pod.Close()
	}
	return session
}

// A guest that knows only what DHCP tells it has the pod's network.
func TestGuestHasPodNetwork(t *testing.T) {
	t.Parallel()
	for shape, routes := range map[podtest.Shape]string{
		podtest.Flannel:   "default via 10.244.1.1 dev eth0\n10.244.0.0/16 via 10.244.1.1 dev eth0\n10.244.1.0/24 dev eth0 proto kernel scope link src POD",
		podtest.Kindnet:   "default via 10.244.0.1 dev eth0\n10.244.0.0/24 via 10.244.0.1 dev eth0\n10.244.0.1 dev eth0 scope link",
		podtest.Calico:    "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link",
		podtest.Cilium:    "default via GATEWAY dev eth0\nGATEWAY dev eth0 scope link",
		podtest.GKE:       "default via GATEWAY dev eth0\nNETWORK via GATEWAY dev eth0\nGATEWAY dev eth0 scope link",
		podtest.AWS:       "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link",
		podtest.Azure:     "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link",
		podtest.BridgeCNI: "default via GATEWAY dev eth0\nNETWORK dev eth0 proto kernel scope link src POD",
	} {
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, shape)
			neighbor := pod.NewNeighbor(t)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			var log podtest.Buffer
			h.Log = slog.New(slog.NewTextHandler(&log, nil))
			session := run(t, h)
			if text := log.String(); !strings.Contains(text, "check passed") || strings.Contains(text, `=""`) || strings.Contains(text, "<nil>") || strings.Contains(text, "ndots") {
				t.Errorf("the log has no check, or what says nothing:\n%s", text)
			}
			network := session.Interfaces()[0]
			if network.MAC.String() != pod.MAC.String() || network.Addresses[0] != pod.IPv4 {
				t.Errorf("network is %+v, the pod has %s %s", network, pod.MAC, pod.IPv4)
			}
			guest := podtest.NewGuest(t, pod.NS, network.Tap, pod.MAC)
			given, err := guest.Udhcpc(t.Context())
			if err != nil {
				t.Fatalf("%v\nthe server knows %+v\nand logged\n%s\nthe pod has\n%s", err, session.Status().Of("eth0"), log.String(), pod.Run(t, "ip", "-s", "addr"))
			}
			for name, want := range map[string]string{
				"ip": pod.IPv4.Addr().String(), "dns": "10.96.0.10", "hostname": "vm-7", "lease": "4294967295",
				"search": "default.svc.cluster.local svc.cluster.local",
			} {
				if given[name] != want {
					t.Errorf("the guest's %s is %q, want %q", name, given[name], want)
				}
			}
			want := strings.NewReplacer("POD", pod.IPv4.Addr().String(), "GATEWAY", pod.Gateway.String(), "NETWORK", pod.IPv4.Masked().String()).Replace(routes)
			if got := strings.TrimSpace(strings.ReplaceAll(guest.Run(t, "ip", "-4", "route"), " \n", "\n")); got != want {
				t.Errorf("the guest's routes are\n%s\nwant\n%s", got, want)
			}
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
			pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())
			talk(t, guest, pod.IPv4.Addr(), hosts(pod, neighbor)...)
			mtu, err := strconv.Atoi(given["mtu"])
			if err != nil {
				t.Fatal(err)
			}
			full := strconv.Itoa(mtu - 28) // what is left after IP and ICMP
			pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", "-M", "do", "-s", full, pod.IPv4.Addr().String())

			status, err := statusOf(t, h)
			if err != nil {
				t.Fatal(err)
			}
			if l := status.Interfaces[0].Lease; !status.Server.Alive || l == nil || l.State != lease.Bound {
				t.Errorf("status is %+v", status)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			// The network is the kernel's: it needs nobody who serves.
			guest.Run(t, "ip", "neigh", "flush", "dev", "eth0")
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
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

// What a VM sends that it may not stays in the pod, and the pod network's DHCP
// stays out.
func TestPortGuard(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	session := run(t, h)
	guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	outside := podtest.OutsideIP.String()
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", outside)

	capture := podtest.StartCapture(t, pod.Node, pod.NodeLink, "")
	guest.IP(t, "addr add 10.244.1.99/24 dev eth0")
	for _, forged := range [][]string{
		{"ping", "-c1", "-W1", "-I", "10.244.1.99", outside},
		{"arping", "-c1", "-w1", "-I", "eth0", "-U", pod.Gateway.String()},
		{"arping", "-c1", "-w1", "-I", "eth0", "-s", "10.244.1.99", pod.Gateway.String()},
	} {
		if _, err := guest.Output(t.Context(), forged[0], forged[1:]...); err == nil && forged[0] == "ping" {
			t.Errorf("%s got an answer", strings.Join(forged, " "))
		}
	}
	guest.Run(t, "ip", "link", "set", "eth0", "address", "02:00:00:00:00:99")
	_, _ = guest.Output(t.Context(), "ping", "-c1", "-W1", outside)
	guest.Run(t, "ip", "link", "set", "eth0", "address", pod.MAC.String())
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", outside)
	capture.Wait("echo request") // so it has seen all that came before
	said := strings.Join(capture.Stop(), "\n")
	for _, bad := range []string{"10.244.1.99", "02:00:00:00:00:99", "BOOTP", "is-at " + pod.MAC.String() + ", length 28 " + pod.Gateway.String()} {
		if strings.Contains(said, bad) {
			t.Errorf("the node saw %q:\n%s", bad, said)
		}
	}

	status, err := statusOf(t, h)
	if err != nil {
		t.Fatal(err)
	}
	dropped := map[prepare.Reason]uint64{}
	for _, c := range status.Interfaces[0].Counters {
		if c.Direction == "from_guest" {
			dropped[c.Reason] = c.Packets
		}
	}
	for _, reason := range []prepare.Reason{"forged-mac", "forged-ip", "forged-arp", "dhcp-client"} {
		if dropped[reason] == 0 {
			t.Errorf("no drop counted as %s in %v", reason, dropped)
		}
	}
}

// The sidecar may be killed: the next one takes over, and the VM notices nothing.
func TestSecondSessionTakesOver(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	first := run(t, h)
	guest, err := podtest.StartGuest(t.Context(), pod.NS, first.Interfaces()[0].Tap, pod.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another virt-launcher-net serves") {
		t.Errorf("a second server beside the first: %v", err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
	second := run(t, h)
	if status, err := asker(h).Wait(t.Context(), control.ForLease); err != nil || status.Of("eth0").Lease.Client.VendorClass == "" {
		t.Errorf("the guest has its lease and need not say so again: %v, %+v", err, status)
	}
	if given, err := guest.Udhcpc(t.Context()); err != nil || given["ip"] != pod.IPv4.Addr().String() {
		t.Errorf("lease %v, error %v", given, err)
	}
	if err := errors.Join(second.Close(t.Context()), guest.Close()); err != nil {
		t.Fatal(err)
	}
	run(t, h)
	if status, err := statusOf(t, h); err != nil || status.Interfaces[0].Lease.IsHeld() {
		t.Errorf("nobody sits on the tap, and there is a guest that has its lease: %+v, %v", status, err)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	h := newHook(t, pod)
	got := make(chan error, 2)
	for _, condition := range []string{control.ForNetwork, control.ForLease} {
		go func() {
			_, err := asker(h).Wait(t.Context(), condition)
			got <- err
		}()
	}
	session := run(t, h)
	if err := <-got; err != nil { // the network
		t.Fatal(err)
	}
	var err error
	unlessBusy(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = asker(h).Wait(ctx, control.ForLease)
		return !errors.Is(err, control.ErrNoAnswer)
	})
	if err == nil || !strings.Contains(err.Error(), "it has not asked for it") {
		t.Errorf("nobody asked for a lease, and wait said: %v", err)
	}
	guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil { // the lease
		t.Fatal(err)
	}
}

// Secondary interfaces get no default route, and one without an address is
// bridged through.
func TestSeveralInterfaces(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	for i, name := range []string{"net1", "net2"} {
		pod.IP(t, "link add "+name+" type veth peer name "+name+" netns "+pod.Node.Path(), "link set "+name+" up")
		pod.Node.IP(t, "link set "+name+" up")
		if i == 0 {
			pod.IP(t, "addr add 10.9.0.7/24 dev net1", "route add default via 10.9.0.1 metric 50", "route add 10.10.0.0/16 via 10.9.0.1")
		}
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0", "net1", "net2"}
	h.SkipCheck = true // nobody is behind net1
	session := run(t, h)
	if n := session.Interfaces(); len(n) != 3 || n[1].Tap != "tap-net1" || len(n[2].Addresses) != 0 {
		t.Errorf("networks are %+v", n)
	}
	in := func(name string) map[string]string {
		for _, n := range session.Interfaces() {
			if n.Interface != name {
				continue
			}
			guest, err := podtest.StartGuest(t.Context(), pod.NS, n.Tap, n.MAC.HardwareAddr())
			if err != nil {
				t.Fatal(err)
			}
			given, err := guest.Udhcpc(t.Context())
			if err := errors.Join(err, guest.Close()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			return given
		}
		return nil
	}
	if l := in("eth0"); !strings.Contains(l["staticroutes"], "0.0.0.0/0 10.244.1.1") {
		t.Errorf("the primary's routes are %q", l["staticroutes"])
	}
	if l := in("net1"); l["ip"] != "10.9.0.7" || l["router"] != "" || l["staticroutes"] != "10.10.0.0/16 10.9.0.1" {
		t.Errorf("the secondary's lease is %v", l)
	}
	for name, routes := range map[string][2]string{ // of eth0 and net1
		"net1":                  {"10.244.0.0/16 10.244.1.1", "10.10.0.0/16 10.9.0.1 0.0.0.0/0 10.9.0.1"},
		prestart.NoDefaultRoute: {"10.244.0.0/16 10.244.1.1", "10.10.0.0/16 10.9.0.1"},
	} {
		if err := session.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.Lease.DefaultRoute = name
		session = run(t, h)
		for i, want := range routes {
			if got := in(session.Interfaces()[i].Interface)["staticroutes"]; got != want {
				t.Errorf("with the default route to %s the routes of %d are %q, want %q", name, i, got, want)
			}
		}
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.Lease.DefaultRoute = "net7"
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "net7 is not one of the VM's interfaces") {
		t.Errorf("a default route to net7: %v", err)
	}
	if _, err := h.Restore(t.Context()); err != nil { // whatever the lease's settings
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}
