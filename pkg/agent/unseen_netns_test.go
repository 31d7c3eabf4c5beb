package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// What an agent does not see of the runtime's network namespaces is no pod that is gone: it
// keeps the pod's state, and says what its container lacks.
func TestUnseen(t *testing.T) {
	t.Parallel()
	const wayOut = "mountPropagation: HostToContainer"
	n := newNode(t)
	unpropagated, deleted := n.newVM(t, "unpropagated"), n.newVM(t, "deleted")
	unpropagated.Netns = filepath.Join(n.netns, "file") // as it is below the node's mount
	old, mounted := t.TempDir(), t.TempDir()            // as the node's directory, and the container's
	podtest.Mount(t, old, mounted, "", "")
	deleted.Netns = filepath.Join(mounted, "deleted")
	for _, err := range []error{os.WriteFile(unpropagated.Netns, nil, 0o600), os.Remove(old), unpropagated.Write(n.stateDir), deleted.Write(n.stateDir)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	n.start(t)
	n.until(t, "both are told", func(s agent.Status) bool {
		return len(s.Pods) == 2 && strings.Contains(s.Pods[0].NotServed["eth0"], wayOut) && strings.Contains(s.Pods[1].NotServed["eth0"], wayOut)
	})
	elsewhere := n.newVM(t, "elsewhere") // the agent has another directory than the runtime
	elsewhere.Netns = filepath.Join(n.netns, "none")
	if err := elsewhere.Write(n.stateDir); err != nil {
		t.Fatal(err)
	}
	if err := n.client().Attach(t.Context(), elsewhere.ContainerID, "eth0"); err == nil || !strings.Contains(err.Error(), wayOut) {
		t.Errorf("of a directory that is another one: %v", err)
	}
	n.log.Until(t, "it is logged", func(s string) bool {
		return strings.Contains(s, elsewhere.Netns+": file does not exist: the agent's container")
	})
}
