package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Who asks a server that is stopped is told so, in time, and which process it is.
func TestStoppedServer(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	common := podArgs(t, pod)
	server := pod.Command(t.Context(), os.Args[0], append(common, "run")...)
	if err := startMain(server); err != nil {
		t.Fatal(err)
	}
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	who := fmt.Sprintf("process %d (", server.Process.Pid)
	for verb, want := range map[string]struct {
		code int
		says []string
	}{
		"wait --for network --timeout 100ms": {exitFailed, []string{"timed out after", "the server does not answer", who, "stopped"}},
		"wait --for lease --timeout 100ms":   {exitFailed, []string{"timed out after", "the server does not answer", who}},
		"wait --for lease --timeout 4s":      {exitFailed, []string{"still waiting", "timed out after 4", who}},
		"status":                             {exitDone, []string{"the server does not answer", who, "tap-eth0"}},
		"run":                                {exitFailed, []string{"another virt-launcher-net serves this pod already", who}},
	} {
		start := time.Now()
		r := runCLI(t, "", append(common, strings.Fields(verb)...)...)
		for _, want := range want.says {
			if !strings.Contains(r.stdout+r.stderr, want) {
				t.Errorf("%s: no %q in %s", verb, want, r.stdout+r.stderr)
			}
		}
		if took := time.Since(start); r.code != want.code || took > podtest.Patience {
			t.Errorf("%s: exit code %d after %s, want %d", verb, r.code, took, want.code)
		}
	}
	if err := server.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if r := runCLI(t, "", append(common, "wait", "--for", "network", "--timeout", "60s")...); r.code != exitDone {
		t.Errorf("wait, once it goes on: %s", r.stderr)
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
}

// SIGTERM ends a wait for a server that is stopped.
func TestWaitForStoppedServerEnds(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	common := podArgs(t, pod)
	server := pod.Command(t.Context(), os.Args[0], append(common, "run")...)
	if err := startMain(server); err != nil {
		t.Fatal(err)
	}
	if err := server.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	wait := pod.Command(t.Context(), os.Args[0], append(common, "wait", "--for", "network")...)
	wait.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	if err := wait.Start(); err != nil {
		t.Fatal(err)
	}
	// The kernel tells nobody of a connection that is not accepted, so its list is
	// read until it has one beside the socket that listens.
	for asked := time.Now(); strings.Count(pod.Run(t, "cat", "/proc/net/unix"), "/control.sock") < 2; {
		if time.Since(asked) > podtest.Patience {
			t.Fatal("wait does not ask")
		}
	}
	if err := wait.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- wait.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("wait says that the network is there")
		}
	case <-time.After(podtest.Patience):
		t.Error("wait does not end")
		_ = wait.Process.Kill()
	}
}

// Only the user and root can ask, whatever the umask.
func TestControlSocketMode(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	args := podArgs(t, pod, "run")
	dir := ""
	for i, arg := range args {
		if arg == "--state-dir" {
			dir = args[i+1]
		}
	}
	server := pod.Command(t.Context(), "sh", append([]string{"-c", `umask 0; exec "$0" "$@"`, os.Args[0]}, args...)...)
	if err := startMain(server); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "control.sock": 0o600, "eth0.json": 0o600, "lock": 0o600} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q has %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := server.Wait(); err != nil {
		t.Error(err)
	}
}
