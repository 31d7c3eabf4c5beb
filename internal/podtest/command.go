package podtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Cmd is a command that is killed when this process dies.
//
// The kernel kills it already when the thread ends that started it
// (PR_SET_PDEATHSIG), and a goroutine that is locked to its thread, as those are
// which call libvirt, takes that with it. So Start, Run, Output and
// CombinedOutput have one thread start all commands, which lasts.
type Cmd struct {
	*exec.Cmd
	ns *NS // where it is started; nil: where this process was
}

// The Go runtime of this process has read it. What is started collects its garbage as it
// does for a user.
func init() { _ = os.Unsetenv("GOGC") }

// Command is a command that is killed when ctx ends or this process dies, not
// started. It runs in ns; nil: where this process was started.
func Command(ctx context.Context, ns *NS, name string, args ...string) *Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return &Cmd{cmd, ns}
}

// alive is a pipe that nobody writes to: it is closed when this process dies.
var alive = sync.OnceValues(func() (*[2]*os.File, error) {
	read, write, err := os.Pipe()
	return &[2]*os.File{read, write}, err
})

// AfterDeath has sh(1) run a script, with its arguments, once this process has died: for
// what is no child of this process, so that no parent-death signal ends it.
func AfterDeath(script string, args ...string) error {
	pipe, err := alive()
	if err == nil {
		cmd := exec.Command("sh", append([]string{"-c", "read -r _; " + script, "sh"}, args...)...)
		cmd.Stdin = pipe[0]
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // not ended by a terminal's Ctrl-C
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("start what runs after this process: %w", err)
	}
	return nil
}

// starter is where the thread that lasts gets what to start.
var starter = sync.OnceValue(func() chan<- func() {
	starts := make(chan func())
	go func() {
		runtime.LockOSThread()
		for start := range starts {
			start()
		}
	}()
	return starts
})

// Start is [exec.Cmd.Start].
func (c *Cmd) Start() error {
	done := make(chan error)
	starter() <- func() {
		if c.ns != nil {
			done <- c.ns.Do(c.Cmd.Start)
		} else {
			done <- c.Cmd.Start()
		}
	}
	return <-done
}

// Run is [exec.Cmd.Run].
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output is [exec.Cmd.Output], but an error does not have what was printed.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput is [exec.Cmd.CombinedOutput].
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}
