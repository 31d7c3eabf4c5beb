package pod

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// node is a machine's worth of namespaces in which podman runs pods. They, and
// all that runs in them, end with the test's process.
type node struct {
	*podtest.NS     // its network
	pid         int // of its first process
	cgroup      string
}

// newNode starts a node, which ends with the test.
func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{NS: podtest.New(t), cgroup: fmt.Sprintf("/vln-test-pod-%d", os.Getpid())}
	first := exec.Command("./node.sh", podtest.Built(t, "cni"))
	first.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	stdout, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	first.Stderr = &stderr
	if err := n.Do(first.Start); err != nil { // born in the node's network
		t.Fatal(err)
	}
	n.pid = first.Process.Pid
	t.Cleanup(func() {
		_ = first.Process.Kill() // the kernel ends everything else in its namespace
		_ = first.Wait()         // killed
		n.removeCgroups()
	})
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		_ = first.Wait()
		t.Fatalf("make node: %v\n%s", err, &stderr)
	}
	return n
}

// removeCgroups removes the control groups that podman made, which are no part
// of a namespace. All are empty now, but for those of others in libpod_parent.
func (n *node) removeCgroups() {
	for _, group := range []string{n.cgroup, "/libpod_parent"} {
		for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
			roots, _ := filepath.Glob(pattern + group) // a pattern without error
			for _, root := range roots {
				removeEmpty(root)
			}
		}
	}
}

func removeEmpty(dir string) {
	entries, _ := os.ReadDir(dir) // none if it is gone
	for _, entry := range entries {
		if entry.IsDir() {
			removeEmpty(filepath.Join(dir, entry.Name()))
		}
	}
	_ = syscall.Rmdir(dir) // not if somebody's processes are in it
}

// command is a command on the node, not started.
func (n *node) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	enter := []string{"-t", strconv.Itoa(n.pid), "-m", "-n", "-p", "-i", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// try runs a command on the node and returns what it printed.
func (n *node) try(ctx context.Context, name string, args ...string) (string, error) {
	cmd := n.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("run %s %s: %w\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// run runs a command on the node and returns what it printed. The test ends if
// it fails.
func (n *node) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := n.try(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// podman is run for podman.
func (n *node) podman(t *testing.T, args ...string) string {
	t.Helper()
	return n.run(t, "podman", args...)
}

// kill kills the first process of a container, as a crash would end it.
func (n *node) kill(t *testing.T, container string) {
	t.Helper()
	pid := n.podman(t, "inspect", "--format", "{{.State.Pid}}", container)
	n.run(t, "kill", "-KILL", pid)
}
