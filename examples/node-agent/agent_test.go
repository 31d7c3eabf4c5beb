package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

const pods = 50

// Many pods have one process. It is killed, and the next one takes all of them over
// as they are, serves a VM, lets go of a pod that is gone, and puts the others back.
func TestNodeAgent(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 50 pods")
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "node-agent")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	all := make([]*podtest.Pod, pods)
	var making errgroup.Group
	making.SetLimit(4)
	for i := range all {
		making.Go(func() (err error) {
			all[i], err = podtest.BuildPod(t.Context(), podtest.BridgeCNI)
			return err
		})
	}
	err := making.Wait()
	t.Cleanup(func() {
		for _, p := range all {
			if p != nil {
				_ = p.Close() // one is closed already
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	resolvConf := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolvConf, []byte("nameserver 10.96.0.10\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--restore", "--state-dir", filepath.Join(dir, "state"), "--resolv-conf", resolvConf}
	for _, p := range all {
		args = append(args, p.Path())
	}
	before := podtest.TakeSnapshot(t, all[0].NS)
	ready := func(a *process) bool { return a.count(" eth0 tap-eth0 ") == pods }

	first := start(t, binary, args)
	first.until(t, ready)
	if err := first.cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.cmd.Wait()

	second := start(t, binary, args)
	second.until(t, ready)
	if n := second.count("msg=prepared"); n > 0 {
		t.Errorf("the second agent prepared %d pods anew", n)
	}
	guest, err := podtest.StartGuest(t.Context(), all[1].NS, "tap-eth0", all[1].MAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Error(err)
	}
	second.until(t, func(a *process) bool {
		return a.count("bound "+filepath.Base(all[1].Path())+" eth0 "+all[1].IPv4.String()) == 1
	})
	if err := guest.Close(); err != nil { // else its pod would not be put back
		t.Fatal(err)
	}
	if err := all[2].Close(); err != nil {
		t.Fatal(err)
	}
	second.until(t, func(a *process) bool { return a.count(`msg="the pod is gone"`) == 1 })

	if err := second.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, all[0].NS)); d != "" {
		t.Errorf("the agent left behind:\n%s", d)
	}
}

// process is an agent that runs, and the lines that it printed.
type process struct {
	cmd   *exec.Cmd
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func start(t *testing.T, binary string, args []string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), more: make(chan struct{}, 1)}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("an agent printed:\n%s", strings.Join(p.lines[max(0, len(p.lines)-100):], ""))
		}
	})
	return p
}

// Write keeps what the agent prints, a line or more at a time.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = slices.AppendSeq(p.lines, strings.Lines(string(b)))
	select {
	case p.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

// count is how many lines have the text.
func (p *process) count(text string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// until waits until the agent has printed what is wanted.
func (p *process) until(t *testing.T, wanted func(*process) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("the agent does not print it"))
	defer cancel()
	for !wanted(p) {
		select {
		case <-p.more:
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
}
