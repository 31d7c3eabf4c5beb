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

// A NIC that is attached by another path of the pod's network namespace, as /var/run/netns is
// of /run/netns, is served beside the others.
func TestOtherPath(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pod := podtest.NewPod(t, podtest.Calico)
	pod.Node.IP(t, "link add veth1 type veth peer name net1 netns "+pod.Path(), "link set veth1 up")
	pod.IP(t, "addr add 10.99.0.2/24 dev net1", "link set net1 up")
	other := filepath.Join(t.TempDir(), "netns")
	if err := os.Symlink(n.netns, other); err != nil {
		t.Fatal(err)
	}
	path := n.mount(t, pod.NS, "vm")
	n.prepareAs(t, "vm", pod, path, "eth0", nil)
	first := n.start(t)
	both := func(s agent.Status) bool { return ready(s) == 1 && len(s.Pods[0].Served.Interfaces) == 2 }
	n.until(t, "the first NIC is served", func(s agent.Status) bool { return ready(s) == 1 })
	n.prepareAs(t, "vm", pod, filepath.Join(other, "vm"), "net1", nil)
	if err := n.client().Attach(t.Context(), "vm", "net1"); err != nil {
		t.Fatal(err)
	}
	n.until(t, "both are served", both)
	first.stop(t)
	second := n.start(t)
	n.until(t, "the next agent serves both", both)
	if err := unmount(path); err != nil {
		t.Fatal(err)
	}
	second.log.Wait(t, "the pod is gone")
}
