package agent_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// While the agent is frozen, a pod ends, and the path of its network namespace is used
// again: by another container or the same one, whose DEL had been done or not. The agent
// serves the new one alone.
func TestPathUsedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id        string // of the container that comes
		deleted   bool   // the state of the one that goes
		overmount bool   // the file of the path stays
	}{
		"another container":              {id: "another", deleted: true},
		"another, without DEL":           {id: "another"},
		"another, at the same file":      {id: "another", overmount: true},
		"the same container":             {id: "sandbox-vm", deleted: true},
		"the same, without DEL":          {id: "sandbox-vm"},
		"the same, at the same file too": {id: "sandbox-vm", overmount: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			old := n.newVM(t, "vm")
			p := n.startProcess(t)
			n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
			p.freeze(t)
			if c.deleted {
				if err := os.RemoveAll(attachment.Dir(n.stateDir, old.ContainerID)); err != nil {
					t.Fatal(err)
				}
			}
			pod := podtest.NewPod(t, podtest.Flannel)
			if c.overmount {
				if err := unix.Unmount(old.Netns, unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
				podtest.Mount(t, pod.Path(), old.Netns, "", "")
			} else {
				if err := unmount(old.Netns); err != nil {
					t.Fatal(err)
				}
				n.mount(t, pod.NS, filepath.Base(old.Netns))
			}
			v := n.prepareAs(t, c.id, pod, old.Netns, "eth0", nil)
			p.thaw(t)
			if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
				t.Error(err)
			}
			n.until(t, "the new one alone is served", func(s agent.Status) bool {
				return len(s.Pods) == 1 && ready(s) == 1 && s.Pods[0].ContainerID == v.ContainerID && s.Pods[0].Served.Interfaces[0].Guest.MAC.String() == v.mac.String()
			})
			v.boot(t, v.guest(t))
		})
	}
}
