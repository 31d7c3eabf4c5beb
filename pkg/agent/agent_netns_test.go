package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// What the plugin tells of is served, what it takes back is not, and nothing is held
// then.
func TestAttach(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	if err := n.client().Attach(t.Context(), "c", "eth0"); !errors.Is(err, agent.ErrNoAgent) {
		t.Errorf("without an agent: %v", err)
	}
	n.start(t)
	n.until(t, "it serves", func(s agent.Status) bool { return !s.Since.IsZero() })
	v := n.newVM(t, "vm1")
	for range 2 {
		if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	v.boot(t, v.guest(t))
	status, err := n.client().Status(t.Context())
	if err != nil || len(status.Pods) != 1 || status.Pods[0].Name != "vm1" || !status.Pods[0].Served.Ready || status.Pods[0].Served.Of("eth0").Lease.State != "bound" {
		t.Errorf("status is %+v, %v", status, err)
	}
	for range 2 {
		if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	if status, err := n.client().Status(t.Context()); err != nil || len(status.Pods) != 0 {
		t.Errorf("status is %+v, %v", status, err)
	}
	if err := attachment.Remove(n.stateDir, v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err == nil {
		t.Error("it serves what is not attached")
	}
}

// A pod whose namespace is gone, though nobody told of it, is let go of, and what was
// kept of it removed.
func TestPodIsGone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm1")
	left := n.newVM(t, "vm2")
	if err := unmount(left.Netns); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.until(t, "the pod is served", func(s agent.Status) bool { return ready(s) == 1 && len(s.Pods) == 1 })
	if err := unmount(v.Netns); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the pod is let go of", func(s agent.Status) bool { return len(s.Pods) == 0 })
	for _, id := range []string{v.ContainerID, left.ContainerID} {
		if _, err := os.Stat(attachment.Dir(n.stateDir, id)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the state of %s is left: %v", id, err)
		}
	}
}
