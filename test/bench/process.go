package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// server is a started program that is to serve a pod's guest.
type server struct {
	began time.Time
	cmd   *exec.Cmd
	// waitReady blocks until a guest could boot, and returns what serves it
	// then: the command itself, or what that has left in the background.
	waitReady func() (pid int, err error)
	pid       int           // of what serves, once it does; until then 0
	took      time.Duration // from the start of the process until then
}

// start starts a command in the namespace, without nsenter(1), whose own start
// would be measured.
func start(ctx context.Context, ns *podtest.NS, cmd *exec.Cmd) (began time.Time, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err = ns.Do(func() error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		began = time.Now()
		return cmd.Start()
	})
	return began, err
}

// run starts a verb of the program, which says on its standard output that a
// guest could boot.
func (p *pod) run(ctx context.Context, binary string, verb ...string) (*server, error) {
	ready, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, p.args(verb...)...)
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = stdout, &stderr
	began, err := start(ctx, p.ns, cmd)
	stdout.Close()
	if err != nil {
		return nil, errors.Join(err, ready.Close())
	}
	return &server{began: began, cmd: cmd, waitReady: func() (int, error) {
		// It stays open, as what else is printed must not end the program.
		if _, err := ready.Read(make([]byte, 1)); err != nil {
			return 0, errors.Join(fmt.Errorf("%s: %w", strings.Join(verb, " "), err), ready.Close(), cmd.Wait(), errors.New(stderr.String()))
		}
		return cmd.Process.Pid, nil
	}}, nil
}

// script starts the shell script, which is ready when it ends: dnsmasq is in
// the background then. Without a gateway it prepares only.
func (p *pod) script(ctx context.Context, gateway string) (*server, error) {
	pidFile := filepath.Join(p.dir, "pid")
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, "prepare.sh"), p.mac.String(), p.ip.String(), gateway)
	cmd.Env = append(os.Environ(), "PID="+pidFile)
	if err := os.WriteFile(cmd.Path, prepareScript, 0o755); err != nil {
		return nil, err
	}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	began, err := start(ctx, p.ns, cmd)
	if err != nil {
		return nil, err
	}
	return &server{began: began, cmd: cmd, waitReady: func() (int, error) {
		if err := cmd.Wait(); err != nil {
			return 0, fmt.Errorf("script: %w\n%s", err, output.String())
		}
		if gateway == "" {
			return 0, nil
		}
		text, err := os.ReadFile(pidFile)
		if err != nil {
			return 0, fmt.Errorf("find dnsmasq: %w", err)
		}
		return strconv.Atoi(strings.TrimSpace(string(text)))
	}}, nil
}

// wait waits until it serves, and notes how long that took.
func (s *server) wait() (err error) {
	s.pid, err = s.waitReady()
	s.took = time.Since(s.began)
	return err
}

// ready is when it served.
func (s *server) ready() time.Time { return s.began.Add(s.took) }

// cpu is what it has taken so far, with what it had to start for it.
func (s *server) cpu() (time.Duration, error) {
	took, err := cpu(s.pid)
	if s.cmd.ProcessState != nil {
		took += s.cmd.ProcessState.UserTime() + s.cmd.ProcessState.SystemTime()
	}
	return took, err
}

// end ends it, if it still runs.
func (s *server) end() error {
	switch {
	case s.cmd.ProcessState == nil:
		return errors.Join(s.cmd.Process.Signal(unix.SIGTERM), s.cmd.Wait())
	case s.pid != 0:
		return kill(s.pid, unix.SIGTERM)
	}
	return nil
}

// kill signals a process that is not our child, and waits until it has ended.
func kill(pid int, signal unix.Signal) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("pidfd_send_signal", err)
	}
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n == 0:
			return fmt.Errorf("process %d does not end", pid)
		default:
			return nil
		}
	}
}

// killAll ends whatever is left in the pods: the children of a script that was
// cut short.
func killAll(pods []*pod) error {
	ours := map[unix.Stat_t]bool{}
	for _, p := range pods {
		if inode, ok := namespaceOf(p.ns.Path()); ok {
			ours[inode] = true
		}
	}
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range paths {
		pid, _ := strconv.Atoi(strings.Split(path, "/")[2])
		if inode, ok := namespaceOf(path); ok && ours[inode] && pid != os.Getpid() {
			err = errors.Join(err, kill(pid, unix.SIGKILL))
		}
	}
	return err
}

func namespaceOf(path string) (unix.Stat_t, bool) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	return unix.Stat_t{Dev: st.Dev, Ino: st.Ino}, err == nil
}

// cpu is the CPU time, user and system, that a process has taken so far.
func cpu(pid int) (time.Duration, error) {
	// CPUCLOCK_SCHED of a process, as clock_getcpuclockid(3) makes it.
	const sched = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, fmt.Errorf("read CPU time: %w", os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(t.Nano()), nil
}

// rss is the memory of a process, in MiB.
func rss(pid int) (float64, error) { return memory(pid, "status", "VmRSS:") }

// pss is the same, with what is shared divided among those who share it.
func pss(pid int) (float64, error) { return memory(pid, "smaps_rollup", "Pss:") }

// private is what of it is its own: what is neither shared nor a file's.
func private(pid int) (float64, error) { return memory(pid, "smaps_rollup", "Anonymous:") }

func memory(pid int, file, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	_, rest, _ := strings.Cut(string(text), "\n"+field)
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		return 0, fmt.Errorf("read memory: %s has no %s: %w", file, field, err)
	}
	return kib / 1024, nil
}
