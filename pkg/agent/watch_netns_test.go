package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// What an agent is not told of since too much has happened at once (IN_Q_OVERFLOW), it finds:
// that a pod is gone, and that its socket is.
func TestTooManyEvents(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm")
	p := n.startProcess(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	missed := func(what func() error) {
		t.Helper()
		p.freeze(t)
		overflow(t, n.netns)
		if err := what(); err != nil {
			t.Fatal(err)
		}
		p.thaw(t)
	}
	missed(func() error { return unmount(v.Netns) })
	n.until(t, "the pod is gone", func(s agent.Status) bool { return len(s.Pods) == 0 })
	missed(func() error { return os.Remove(filepath.Join(n.stateDir, "node.sock")) })
	if err := p.cmd.Wait(); err == nil || !strings.Contains(p.log.String(), "removed the agent's socket") {
		t.Errorf("it ends with %v", err)
	}
}

// overflow has more happen in a directory than a queue of events has room for.
func overflow(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	room, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range room/2 + 1 {
		path := filepath.Join(dir, fmt.Sprint("event", i%2))
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// Where no directory can be watched any more, an agent serves, says what helps, and looks
// itself.
func TestNoInotify(t *testing.T) {
	t.Parallel()
	for limit, sysctl := range map[string]string{"max_inotify_instances": "max_user_instances", "max_inotify_watches": "max_user_watches"} {
		t.Run(limit, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			cmd := podtest.Command(context.WithoutCancel(t.Context()), nil, "unshare", "--user", "--map-root-user", "--kill-child", "--fork",
				"sh", "-c", `echo 0 >/proc/sys/user/`+limit+` && exec "$0"`, os.Args[0])
			cmd.Env = append(os.Environ(), stateDirOf+"="+n.stateDir)
			var log podtest.Buffer
			cmd.Stderr = &log
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			log.Wait(t, "serving")
			if !strings.Contains(log.String(), "fs.inotify."+sysctl) {
				t.Errorf("it logs\n%s", &log)
			}
			if err := os.Remove(filepath.Join(n.stateDir, "node.sock")); err != nil {
				t.Fatal(err)
			}
			log.Wait(t, "removed the agent's socket")
		})
	}
}
