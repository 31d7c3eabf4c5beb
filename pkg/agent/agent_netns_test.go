package agent_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
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

// Runtimes of one node may name the directory of namespaces differently.
func TestPodIsGoneByAnotherPath(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t)
	n.until(t, "it answers", func(agent.Status) bool { return true })
	other := filepath.Join(t.TempDir(), "run")
	if err := os.Symlink(n.netns, other); err != nil {
		t.Fatal(err)
	}
	for i, dir := range []string{n.netns, other, n.netns} {
		pod := podtest.NewPod(t, podtest.Calico)
		path := n.mount(t, pod.NS, fmt.Sprintf("vm%d", i))
		v := n.prepare(t, pod, filepath.Join(dir, filepath.Base(path)), "eth0", nil)
		if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if err := unmount(filepath.Join(n.netns, fmt.Sprintf("vm%d", i))); err != nil {
			t.Fatal(err)
		}
		n.until(t, fmt.Sprintf("pod %d is let go of", i), func(s agent.Status) bool { return len(s.Pods) == 2-i })
	}
}

// A path that had been a pod's before, which nobody deleted while there was no agent, is
// another pod's by now: that is served.
func TestPathOfAnother(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	old := n.newVM(t, "vm")
	if err := unmount(old.Netns); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(attachment.Dir(n.stateDir, old.ContainerID), attachment.Dir(n.stateDir, "a")); err != nil {
		t.Fatal(err)
	}
	old.ContainerID = "a" // it comes first
	if err := old.Write(n.stateDir); err != nil {
		t.Fatal(err)
	}
	now := n.newVM(t, "vm")
	n.start(t)
	n.until(t, "the pod is served", func(s agent.Status) bool { return ready(s) == 1 })
	now.boot(t, now.guest(t))
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
	n.until(t, "the pods are let go of, with their state", func(s agent.Status) bool {
		for _, id := range []string{v.ContainerID, left.ContainerID} {
			if _, err := os.Stat(attachment.Dir(n.stateDir, id)); !errors.Is(err, fs.ErrNotExist) {
				return false
			}
		}
		return len(s.Pods) == 0
	})
}
