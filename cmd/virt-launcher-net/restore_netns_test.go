package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// From outside of the pod, run --restore leaves no trace either, whatever becomes
// of the path by which it entered.
func TestRunRestoresFromOutside(t *testing.T) {
	t.Parallel()
	program := newConfined(t, "0").program
	pod := podtest.NewPod(t, podtest.CalicoDual)
	before := podtest.TakeSnapshot(t, pod.NS)
	inside := pod.Command(t.Context(), "sleep", "1000") // who has the namespace that the program is told
	if err := inside.Start(); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "netns")
	if err := exec.CommandContext(t.Context(), "ln", "-s", pod.Path(), link).Run(); err != nil {
		t.Fatal(err)
	}
	cmd := podtest.Command(t.Context(), nil, program, "run", "--netns", link, "--state-dir", t.TempDir(), "--restore")
	if err := startMain(cmd); err != nil {
		t.Fatal(err)
	}
	if err := exec.CommandContext(t.Context(), "rm", link).Run(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Errorf("run ended with %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after run --restore:\n%s", d)
	}
	if err := inside.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = inside.Wait()
}

// While a VM has the tap, restore says how to do it nevertheless.
func TestRestoreForce(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	before := podtest.TakeSnapshot(t, pod.NS)
	program := launchtest.NewProgram(t, pod)
	program.Run(t, "prepare")
	nic := podtest.NewNIC(t, pod.NS, "tap-eth0")
	_, err := program.Output(t, "restore")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed ||
		!strings.Contains(err.Error(), "tap-eth0") || !strings.Contains(err.Error(), "--force") {
		t.Errorf("restore: %v", err)
	}
	program.Run(t, "restore", "--force")
	_ = nic.Close()
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore --force:\n%s", d)
	}
}

// Of two at once one waits for the other and finds nothing to do.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	program := launchtest.NewProgram(t, podtest.NewPod(t, podtest.CalicoDual))
	var both sync.WaitGroup
	var prepared atomic.Int32
	for range 2 {
		both.Go(func() {
			var log bytes.Buffer
			cmd := program.Command(t.Context(), "prepare")
			cmd.Stderr = &log
			if err := cmd.Run(); err != nil {
				t.Errorf("prepare: %v: %s", err, &log)
			}
			if strings.Contains(log.String(), "msg=prepared") {
				prepared.Add(1)
			}
		})
	}
	both.Wait()
	if n := prepared.Load(); n != 1 {
		t.Errorf("%d have prepared the pod, want one", n)
	}
}
