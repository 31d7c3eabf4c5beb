package kind

import (
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// connection is a TCP connection from a pod.
type connection struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.Reader
}

// dial opens a connection from the pod on the other node to a web server, which is
// left idle.
func dial(t *testing.T, ip string) *connection {
	t.Helper()
	return dialFrom(t, ip, "client")
}

// dialFrom is dial from another container, which pod tells kubectl.
func dialFrom(t *testing.T, ip string, pod ...string) *connection {
	t.Helper()
	args := slices.Concat([]string{"exec", "-i"}, pod, []string{"--", "busybox", "nc", ip, "80"})
	c := &connection{cmd: exec.CommandContext(t.Context(), "kubectl", args...)}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if c.stdout, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // killed, unless it has ended
	})
	return c
}

// get asks for the page and returns what the server says until it closes.
func (c *connection) get(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(c.stdin, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c.stdout)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(answer))
}
