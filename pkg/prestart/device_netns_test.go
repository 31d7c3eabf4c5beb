package prestart_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A device that the plugin host-device lent to the pod is warned of, and goes back
// to the node once the pod is restored. By redirect it goes back at any time.
func TestLentDevice(t *testing.T) {
	t.Parallel()
	pod := podtest.NewBarePod(t)
	pod.Node.IP(t, "link add dev0 address 02:00:00:00:00:70 type veth peer name wire", "link set wire up", "addr add 10.88.0.1/24 dev wire")
	const conf = `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "host-device", "device": "dev0", "ipam": {"type": "static",
		"addresses": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}]}}]}`
	attachment, err := podtest.AddCNI(t.Context(), pod.Node, pod.NS, []byte(conf), podtest.Built(t, "cni"), filepath.Join(t.TempDir(), "cache"), "eth0")
	if err != nil {
		t.Fatal(err)
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	var log podtest.Buffer
	h := newHook(t, pod)
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	plans, err := h.Plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const warning = "eth0 looks like a device of the node"
	stays := h.Network.Datapath == redirect
	if text := strings.Join(plans[0].Warnings(false), "\n"); strings.HasPrefix(text, warning) == stays {
		t.Errorf("the plan warns of %q", text)
	}
	session := run(t, h)
	if strings.Contains(log.String(), warning) == stays {
		t.Errorf("the log has\n%s", &log)
	}
	guest, err := podtest.StartGuest(t.Context(), pod.NS, session.Interfaces()[0].Tap, session.Interfaces()[0].MAC.HardwareAddr())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.88.0.1")
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	if err := attachment.Delete(t.Context()); (err == nil) != stays {
		t.Errorf("the CNI takes the device of a prepared pod back: %v", err)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if stays {
		if left := pod.Run(t, "ip", "-br", "link") + pod.Run(t, "nft", "list", "ruleset"); strings.Contains(left, "eth0") {
			t.Errorf("restore leaves\n%s", left)
		}
	} else {
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("restored:\n%s", d)
		}
		if err := attachment.Delete(context.WithoutCancel(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if link := pod.Node.Run(t, "ip", "link", "show", "dev0"); !strings.Contains(link, "02:00:00:00:00:70") {
		t.Errorf("the node has %s", link)
	}
}
