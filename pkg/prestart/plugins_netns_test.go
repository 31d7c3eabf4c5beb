package prestart_test

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What the real CNI plugins make is handed to a guest, or refused before the
// first change.
func TestRealPlugins(t *testing.T) {
	t.Parallel()
	const hostLocal = `"ipam": {"type": "host-local", "dataDir": "STATE", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}`
	for _, c := range []struct {
		name    string
		plugins string // of the configuration list
		refused string // a part of the error by the bridge; empty: it works
	}{
		{name: "ptp", plugins: `{"type": "ptp", "mtu": 1400, ` + hostLocal + `}`},
		{name: "switch with static addresses", plugins: `{` + podtest.SwitchPlugin + `"cni1", "ipam": {"type": "static",
			"addresses": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.88.0.1"}]}, "isGateway": true}`},
		{name: "switch, bandwidth and tuning chained", plugins: `{` + podtest.SwitchPlugin + `"cni1", "isGateway": true, ` + hostLocal + `},
			{"type": "tuning", "mtu": 1300, "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}},
			{"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000, "egressRate": 100000000, "egressBurst": 8000000}`},
		{name: "macvlan", plugins: `{"type": "macvlan", "master": "uplink0", ` + hostLocal + `}`, refused: "it is a macvlan"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewBarePod(t)
			dir := t.TempDir()
			conf := strings.ReplaceAll(fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "net", "plugins": [%s]}`, c.plugins), "STATE", filepath.Join(dir, "networks"))
			add := func(ns *podtest.NS, conf string) *podtest.Attachment {
				attachment, err := podtest.AddCNI(t.Context(), pod.Node, ns, []byte(conf), podtest.Built(t, "cni"), filepath.Join(dir, "cache"), "eth0")
				if err != nil {
					t.Fatal(err)
				}
				return attachment
			}
			attachment := add(pod.NS, conf)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			gateway := host{"node", pod.Node, netip.MustParseAddr("10.88.0.1")}
			if c.refused != "" { // the node does not hear those that are on its uplink
				gateway.name, gateway.ns = "router", pod.Outside
				pod.Outside.IP(t, "addr add 10.88.0.1/24 dev eth0")
			}
			if c.refused != "" && h.Network.Datapath != redirect {
				if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got error %v, want %q", err, c.refused)
				}
			} else {
				other := podtest.New(t)
				neighbor := add(other, strings.ReplaceAll(conf, "10.88.0.7/24", "10.88.0.8/24"))
				address := attachment.Result.IPs[0].Address.IP.String()
				session := run(t, h)
				guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, session.Interfaces()[0].MAC.HardwareAddr())
				if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != address {
					t.Fatalf("lease %v, error %v", lease, err)
				}
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.88.0.1")
				gateway.ns.Run(t, "ping", "-c3", "-i0.2", "-W20", address)
				talk(t, guest, netip.MustParseAddr(address),
					gateway,
					host{"other pod", other, netip.MustParseAddr(neighbor.Result.IPs[0].Address.IP.String())},
					host{"outside", pod.Outside, podtest.OutsideIP})
				if err := session.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				h.Force = true // the guest has the tap still
				if _, err := h.Restore(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := neighbor.Delete(context.WithoutCancel(t.Context())); err != nil {
					t.Error(err)
				}
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("afterwards:\n%s", d)
			}
			if err := attachment.Delete(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
}
