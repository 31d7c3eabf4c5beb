package prestart_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A domain as others write it has NICs already. Each that will not work in the pod
// is named once, with the way out, and those that may work are not.
func TestAttachWarnsOfOtherNICs(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.IP(t, "link add net1 type veth peer name net1-peer")
	const xml = `<domain type='kvm'><name>vm</name><devices>
  <interface type='network'><mac address='52:54:00:12:34:56'/><source network='default'/></interface>
  ` + podtest.SwitchLibvirt + `
  <interface type='direct'><source dev='net1'/></interface>
</devices></domain>`
	h := newHook(t, pod)
	for _, prepared := range []bool{false, true} {
		var log bytes.Buffer
		h.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
		if prepared {
			if _, err := h.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			log.Reset()
		}
		if _, err := h.Attach(t.Context(), []byte(xml)); err != nil {
			t.Fatal(err)
		}
		text := log.String()
		if strings.Count(text, "will not work") != 2 || !strings.Contains(text, `nic="interface 1 type network MAC 52:54:00:12:34:56"`) ||
			!strings.Contains(text, "no device brq") || !strings.Contains(text, "<alias name='ua-eth0'/>") {
			t.Errorf("prepared %v, log:\n%s", prepared, text)
		}
	}
}
