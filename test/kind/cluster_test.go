package kind

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// patience is how long the test waits for what Kubernetes does by and by.
const patience = "90s"

// try runs a command and returns what it printed.
func try(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// run is try for a test, which ends if the command fails.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, "kubectl", args...)
}

// get reads a field of an object, by a JSONPath template.
func get(t *testing.T, object, field string) string {
	t.Helper()
	return kubectl(t, "get", object, "-o", "jsonpath={"+field+"}")
}

// waitFor waits until an object is in a condition.
func waitFor(t *testing.T, object, condition string) {
	t.Helper()
	kubectl(t, "wait", "--for="+condition, "--timeout="+patience, object)
}

// apply makes the ordinary pods.
func apply(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "-f", "pods.yaml")
	waitFor(t, "pod/client", "condition=Ready")
	waitFor(t, "pod/server", "condition=Ready")
}

// client runs a command in the pod on the other node.
func client(t *testing.T, command ...string) string {
	t.Helper()
	return kubectl(t, append([]string{"exec", "client", "--"}, command...)...)
}

// eventually repeats what may fail until the cluster has caught up: rules of a
// Service are there some time after it.
func eventually(t *testing.T, what func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var last error // of what was not ended before it failed
	for {
		err := what(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatal(last)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// page gets a page from the pod on the other node.
func page(t *testing.T, url, want string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		out, err := try(ctx, "kubectl", "exec", "client", "--", "curl", "-sS", "-k", "--max-time", "3", url)
		if err == nil && out != want {
			err = fmt.Errorf("%s is %q, want %q", url, out, want)
		}
		return err
	})
}
