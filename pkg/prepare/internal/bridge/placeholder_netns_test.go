package bridge_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// prepared is a pod that is prepared.
func prepared(t *testing.T, shape podtest.Shape) *podtest.Pod {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	if err := pod.Do(func() error {
		read, err := discover.ReadPod(t.Context(), discover.Options{})
		if err != nil {
			return err
		}
		plan, err := prepare.NewPlan(read.Interfaces[0], prepare.Options{})
		if err != nil {
			return err
		}
		store, err := prepare.OpenStore(t.Context(), t.TempDir())
		if err != nil {
			return err
		}
		defer store.Close()
		_, _, err = prepare.Apply(t.Context(), nil, store, plan)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return pod
}

// Whoever looks the pod's interface up in a prepared pod finds its MAC and the
// addresses of both families, ready to be bound to.
func TestPlaceholderHasWhatThePodHad(t *testing.T) {
	t.Parallel()
	pod := prepared(t, podtest.BridgeDual)
	var links []struct {
		Address   mac.Addr
		Flags     []string
		Addresses []struct {
			Local     string
			Tentative bool
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(pod.Run(t, "ip", "-j", "addr", "show", "eth0")), &links); err != nil {
		t.Fatal(err)
	}
	l := links[0]
	if l.Address != mac.Of(pod.MAC) {
		t.Errorf("its MAC is %s, not %s", l.Address, pod.MAC)
	}
	if len(l.Addresses) != 2 || l.Addresses[0].Local != pod.IPv4.Addr().String() || l.Addresses[1].Local != pod.IPv6.Addr().String() || l.Addresses[1].Tentative {
		t.Errorf("its addresses are %+v", l.Addresses)
	}
}

// Should somebody delete the bridge, the pod must not answer for the VM's address.
func TestPodNeverAnswersForTheVM(t *testing.T) {
	t.Parallel()
	pod := prepared(t, podtest.BridgeDual)
	pod.IP(t, "link del br-eth0")
	pod.Node.IP(t, "neigh flush all")
	for _, address := range []string{pod.IPv4.Addr().String(), pod.IPv6.Addr().String()} {
		_, _ = pod.Node.Output(t.Context(), "ping", "-c1", "-W1", address) // the node asks who has it
		if neighbor := pod.Node.Run(t, "ip", "neigh", "show", address); strings.Contains(neighbor, "lladdr") {
			t.Errorf("the pod answers for %s: %s", address, neighbor)
		}
	}
}
