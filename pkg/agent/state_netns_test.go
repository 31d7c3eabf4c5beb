package agent_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// A container whose sandbox was made anew keeps what is in the new network namespace, when
// what is attached in the old one is found to be gone.
func TestSandboxMadeAnew(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm")
	old := v.Attachment
	old.Interface, old.Netns, old.Since = "net1", filepath.Join(n.netns, "old"), v.Since.Add(-time.Minute)
	if err := old.Write(n.stateDir); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.until(t, "the new one is served", func(s agent.Status) bool { return ready(s) == 1 && len(s.Pods[0].NotServed) == 0 })
	if all, err := attachment.OfContainer(n.stateDir, v.ContainerID); err != nil || len(all) != 1 || all[0].Interface != "eth0" {
		t.Errorf("attached is %+v, %v", all, err)
	}
	v.boot(t, v.guest(t))
}

// That a single file of a NIC is deleted is told once, and the NIC is served.
func TestFileDeleted(t *testing.T) {
	t.Parallel()
	for place, name := range []string{"eth0.attachment", "eth0.json"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			v := n.newVM(t, "vm")
			r := n.start(t)
			n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
			if err := os.Remove(attachment.Files(n.stateDir, v.ContainerID, "eth0")[place]); err != nil {
				t.Fatal(err)
			}
			n.until(t, "it is told", func(s agent.Status) bool {
				return ready(s) == 1 && strings.Contains(s.Pods[0].Deleted["eth0"], name+" is deleted") && strings.Contains(s.Pods[0].Deleted["eth0"], remedy)
			})
			if err := os.WriteFile(filepath.Join(attachment.Dir(n.stateDir, v.ContainerID), "other"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(attachment.Dir(n.stateDir, v.ContainerID), "other")); err != nil {
				t.Fatal(err)
			}
			v.boot(t, v.guest(t))
			if log := r.log.String(); strings.Count(log, "a file of a NIC that is served is missing") != 1 {
				t.Error("it is not told once")
			}
		})
	}
}

// A pod whose state somebody deletes is served until it ends, what can't be repaired is
// told, and its directory is not made again.
func TestStateDeleted(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm")
	r := n.start(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	dir := attachment.Dir(n.stateDir, v.ContainerID)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	v.boot(t, v.guest(t))
	r.log.Wait(t, "eth0.json is deleted: the VM keeps its network")
	if s := r.Status(); !strings.Contains(s.Pods[0].Deleted["eth0"], "eth0.json") || len(s.Pods[0].NotServed) > 0 {
		t.Errorf("the status is %+v", s)
	}
	v.Run(t, "nft", "flush", "ruleset")
	r.log.Wait(t, "can't repair the VM's nftables tables")
	if s := r.Status(); s.Pods[0].Served.Ready {
		t.Errorf("it is ready without a port guard: %+v", s)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is made again: %v", err)
	}
	if err := unmount(v.Netns); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the pod is gone", func(s agent.Status) bool { return len(s.Pods) == 0 })
}

// A sandbox that is made anew while neither it nor the one before can be served is served once it
// can be: the end of the one before is not its own.
func TestSandboxMadeAnewWhileNotServed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm1")
	at := v.Attachment
	at.Netns = filepath.Join(n.netns, "before")
	if err := errors.Join(os.WriteFile(at.Netns, nil, 0o600), at.Write(n.stateDir)); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	notServed := func(why string) func(agent.Status) bool {
		return func(s agent.Status) bool {
			return len(s.Pods) == 1 && strings.Contains(s.Pods[0].NotServed["eth0"], why)
		}
	}
	n.until(t, "the first can't be served", notServed("not a network namespace"))
	var serving *statedir.Serving
	v.In(t, func() (err error) {
		serving, err = statedir.Serve(t.Context())
		return err
	})
	if err := v.Write(n.stateDir); err != nil {
		t.Fatal(err)
	}
	if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err == nil {
		t.Error("it is served twice")
	}
	if err := os.Remove(at.Netns); err != nil {
		t.Fatal(err)
	}
	// Events come in their order.
	other := n.newVM(t, "vm2")
	if err := errors.Join(n.client().Attach(t.Context(), other.ContainerID, "eth0"), unmount(other.Netns)); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the other's end is noticed", func(s agent.Status) bool {
		return !slices.ContainsFunc(s.Pods, func(p agent.Pod) bool { return p.Name == "vm2" })
	})
	serving.Close()
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
}
