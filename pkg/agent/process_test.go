package agent_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// stateDirOf has the test binary be an agent, which can be killed.
const stateDirOf = "VIRT_LAUNCHER_NET_TEST_AGENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(stateDirOf); dir != "" {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		if err := agent.New(agent.Options{StateDir: dir, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}).Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// process is an agent in a process of its own.
type process struct {
	cmd *podtest.Cmd
	log podtest.Buffer
}

// startProcess starts an agent, which is killed at the test's end at the latest.
func (n *node) startProcess(t testing.TB) *process {
	t.Helper()
	p := &process{cmd: podtest.Command(context.WithoutCancel(t.Context()), nil, os.Args[0])}
	p.cmd.Env = append(os.Environ(), stateDirOf+"="+n.stateDir)
	p.cmd.Stderr = io.MultiWriter(&p.log, &n.log)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("an agent logged:\n%s", p.log.String())
		}
	})
	return p
}

// kill kills the agent, if it is still there.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

// end asks the agent to end, and waits until it has.
func (p *process) end(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the agent ended with %v", err)
	}
}

// freeze stops the agent, until thaw.
func (p *process) freeze(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Another of its threads may go on until all have stopped.
	if _, err := unix.Wait4(p.cmd.Process.Pid, nil, unix.WUNTRACED, nil); err != nil {
		t.Fatal(err)
	}
}

func (p *process) thaw(t testing.TB) {
	t.Helper()
	if err := p.cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
