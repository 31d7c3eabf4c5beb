package main

import (
	"os"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Who forgets --netns, or runs in a container that has the machine's network (hostNetwork),
// must not hand that to a VM.
func TestMachinesOwnNetwork(t *testing.T) {
	t.Parallel()
	podtest.New(t) // it takes root
	program := podtest.Built(t, "virt-launcher-net")
	container := []string{"unshare", "--pid", "--fork", "--mount-proc"}
	pod := append(container, "--net")
	refused, allowed := "this is the network of the machine itself", "there is no interface vln-none"
	for _, c := range []struct {
		wrap []string
		line string
		want string
	}{
		{nil, "plan --timeout 1ms", refused},
		{nil, "prepare --timeout 1ms", refused},
		{nil, "run --timeout 1ms", refused},
		{nil, "restore", refused},
		{nil, "plan --netns /proc/self/ns/net --timeout 1ms", allowed},
		{container, "plan --timeout 1ms", refused},
		{container, "plan --netns /proc/self/ns/net --timeout 1ms", allowed},
		{pod, "plan --timeout 1ms", allowed},
	} {
		if _, err := os.Stat("/proc/sys/net/core/netdev_max_backlog"); err != nil && c.want == refused {
			continue // this is a container itself, with a network of its own
		}
		words := append(append([]string{}, c.wrap...), program, "--state-dir", t.TempDir(), "-i", "vln-none")
		words = append(words, strings.Fields(c.line)...)
		out, err := podtest.Command(t.Context(), nil, words[0], words[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%q: %v: %s", words, err, out)
		}
	}
}
