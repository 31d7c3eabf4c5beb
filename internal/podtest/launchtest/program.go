package launchtest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Program is the built program for one pod. It runs on the pod's node.
type Program struct {
	// Binary is the file that is run.
	Binary string
	// Flags name the pod and StateDir, which is its own.
	Flags    []string
	StateDir string
	// Datapath is by what plan, prepare and run are told to connect the VM.
	Datapath string
	// Log is what the program that serves has printed.
	Log podtest.Buffer
	// Process is the program that serves; nil: none was started.
	Process *os.Process

	node *podtest.NS
	wait func() error // for the end of the one that serves
}

// NewProgram is the program for a pod of a test.
func NewProgram(t testing.TB, pod *podtest.Pod) *Program {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	return &Program{
		Binary:   podtest.Built(t, "virt-launcher-net"),
		Flags:    []string{"--netns", pod.Path(), "--state-dir", dir},
		StateDir: dir,
		Datapath: podtest.Datapath(t),
		node:     pod.Node,
	}
}

// Args is a verb with its arguments, the pod and, if the verb prepares it, the datapath.
func (p *Program) Args(verb string, args ...string) []string {
	all := slices.Concat([]string{verb}, p.Flags)
	if verb == "plan" || verb == "prepare" || verb == "run" {
		all = append(all, "--datapath", p.Datapath)
	}
	return append(all, args...)
}

// Command is a verb with its arguments, not started.
func (p *Program) Command(ctx context.Context, verb string, args ...string) *podtest.Cmd {
	return p.node.Command(ctx, p.Binary, p.Args(verb, args...)...)
}

// Output runs a verb and returns what it printed on standard output. The error
// has all that it printed.
func (p *Program) Output(t testing.TB, verb string, args ...string) (string, error) {
	t.Helper()
	return p.node.Output(t.Context(), p.Binary, p.Args(verb, args...)...)
}

// Run is Output for a verb that must succeed.
func (p *Program) Run(t testing.TB, verb string, args ...string) string {
	t.Helper()
	out, err := p.Output(t, verb, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Status reads into v what the program says of the pod's only interface.
func (p *Program) Status(t testing.TB, v any) {
	t.Helper()
	var all struct{ Interfaces []json.RawMessage }
	text := p.StatusAll(t, &all)
	if len(all.Interfaces) != 1 {
		t.Fatalf("status is %s", text)
	}
	if err := json.Unmarshal(all.Interfaces[0], v); err != nil {
		t.Fatalf("%v in\n%s", err, all.Interfaces[0])
	}
}

// StatusAll reads into v all that the verb status says, and returns it, too. A server that
// does not answer in time, as on a busy machine, is asked again.
func (p *Program) StatusAll(t testing.TB, v any) (text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		text = p.Run(t, "status", "-o", "json")
		if !strings.Contains(text, "the server does not answer") || time.Now().After(deadline) {
			break
		}
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return text
}

// Serve starts the verb run and returns once a guest could boot. The program is
// asked to end at the test's end, and has to end well, unless it was stopped before.
func (p *Program) Serve(t testing.TB, args ...string) {
	t.Helper()
	ready, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	cmd := p.Command(context.WithoutCancel(t.Context()), "run", args...)
	cmd.Stdout, cmd.Stderr = stdout, &p.Log
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		t.Fatal(err)
	}
	p.Process, p.wait = cmd.Process, cmd.Wait
	t.Cleanup(func() {
		if p.Process == cmd.Process && p.wait != nil {
			if err := p.Stop(syscall.SIGTERM); err != nil {
				t.Errorf("virt-launcher-net run ended with: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("virt-launcher-net printed:\n%s", p.Log.String())
		}
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil { // it prints the interfaces when a guest could boot
		t.Fatalf("virt-launcher-net run does not serve: %v\n%s", err, p.Log.String())
	}
	p.CheckDatapath(t)
}

// CheckDatapath fails the test unless the pod's only interface is prepared by Datapath.
func (p *Program) CheckDatapath(t testing.TB) {
	t.Helper()
	var status struct{ Datapath string }
	p.Status(t, &status)
	if status.Datapath != p.Datapath {
		t.Errorf("the pod is prepared by %q, not by the datapath %s", status.Datapath, p.Datapath)
	}
}

// Stop signals the program that serves, and returns how it ended: killed, if that
// took too long.
func (p *Program) Stop(signal syscall.Signal) error {
	_ = p.Process.Signal(signal) // an error: it has ended
	defer time.AfterFunc(20*time.Second, func() { _ = p.Process.Kill() }).Stop()
	wait := p.wait
	p.wait = nil
	return wait()
}
