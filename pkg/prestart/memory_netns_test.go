package prestart_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What a guest is given just before the session ends is kept.
func TestLastAnswerIsKept(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	session := run(t, h)
	nic := podtest.NewNIC(t, pod.NS, session.Interfaces()[0].Tap)
	m, err := dhcpv4.NewDiscovery(pod.MAC, dhcpv4.WithGeneric(dhcpv4.OptionRapidCommit, nil))
	if err != nil {
		t.Fatal(err)
	}
	nic.Send(podtest.UDPFrame(pod.MAC, packet.Broadcast[:], netip.MustParseAddrPort("0.0.0.0:68"), netip.MustParseAddrPort("255.255.255.255:67"), m.ToBytes()))
	isAck := func(frame []byte) bool {
		answer, err := dhcpv4.FromBytes(frame[min(packet.UDP4Len, len(frame)):])
		return err == nil && answer.MessageType() == dhcpv4.MessageTypeAck
	}
	if nic.Receive(time.Minute, isAck) == nil {
		t.Fatal("no answer")
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(filepath.Join(h.StateDir, "eth0.lease")); err != nil || !strings.Contains(string(kept), `"state": "bound"`) {
		t.Errorf("of the lease is kept: %v\n%s", err, kept)
	}
}

// restore takes along what was kept of an interface, and what killed processes
// left, but nothing of others.
func TestRestoreForgets(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path(), "link set net1 up")
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0", "net1"}
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"eth0.lease", "eth0.lease6", "net1.lease", ".eth0.lease4711", ".eth0.lease64711", ".net1.lease4711", // of leases
		".eth0.json4711", ".net1.json4711", // of records
		"eth0.json.stale", "eth0.json.damaged", ".notes", "lease", // somebody's
	} {
		if err := os.WriteFile(filepath.Join(h.StateDir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		restore string
		left    []string
	}{
		{"eth0", []string{".net1.lease4711", ".notes", "eth0.json.damaged", "eth0.json.stale", "lease", "lock", "net1.json", "net1.lease"}},
		{"net1", []string{".notes", "eth0.json.damaged", "eth0.json.stale", "lease", "lock"}},
	} {
		h.Interfaces = []string{c.restore}
		if _, err := h.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(h.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range entries {
			left = append(left, e.Name())
		}
		if !slices.Equal(left, c.left) {
			t.Errorf("after restore of %s there is %q, want %q", c.restore, left, c.left)
		}
	}
}

// What a session writes is where it was when the session began, wherever its process goes.
func TestRelativeDirectories(t *testing.T) { // in a working directory of its own
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.StateDir, h.OutputDir = "state", "out"
	start, elsewhere := t.TempDir(), t.TempDir()
	t.Chdir(start)
	session := run(t, h)
	t.Chdir(elsewhere)
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]int{filepath.Join(start, "state", "eth0.lease"): 1, filepath.Join(start, "out", prestart.NICsFile): 1, filepath.Join(elsewhere, "*"): 0} {
		if found, err := filepath.Glob(path); err != nil || len(found) != want {
			t.Errorf("of %s there are %v, %v", path, found, err)
		}
	}
}
