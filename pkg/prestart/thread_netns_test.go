package prestart_test

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A session of the calling thread's network namespace stays with that, whatever
// goroutine has it do something: it plugs, repairs and restores there, and touches
// nothing where the process is.
func TestSessionOfAThread(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Netns, h.Interfaces, h.RestoreAfter, h.Repair = "", []string{"eth0"}, true, true
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	var session *prestart.Session
	pod.In(t, func() (err error) {
		session, err = h.Run(t.Context())
		return err
	})
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Error(err)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	pod.Run(t, "nft", "flush", "ruleset")
	for end := time.Now().Add(podtest.Patience); !strings.Contains(log.String(), "repaired the VM's nftables tables"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("the tables are not repaired:\n%s", log.String())
			break
		}
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after the end:\n%s", d)
	}
	others, err := os.ReadDir(h.StateDir)
	for _, o := range others {
		if strings.HasPrefix(o.Name(), "netns-") {
			t.Errorf("there is state of another network namespace: %s", o.Name())
		}
	}
	if err != nil {
		t.Error(err)
	}
}
