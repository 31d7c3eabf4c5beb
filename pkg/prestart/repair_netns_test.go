package prestart_test

import (
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// While an interface is unplugged its tables can be repaired: neither waits for the other.
func TestRepairedWhileUnplugged(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := hotplugHook(t, pod)
	h.Repair = true
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	isUnplugged := atomic.Bool{}
	h.Hotplug.Privileged = func(change func() error) error {
		if isUnplugged.Load() {
			if err := exec.Command("nft", "flush", "ruleset").Run(); err != nil {
				return err
			}
			for end := time.Now().Add(podtest.Patience); strings.Count(log.String(), "repaired the VM's nftables tables") < 2; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					return errors.New("the tables are not repaired")
				}
			}
		}
		return change()
	}
	session := run(t, h)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	isUnplugged.Store(true)
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Errorf("%v, and the log is\n%s", err, log.String())
	}
}
