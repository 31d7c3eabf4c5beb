package main

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
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
	cmd := exec.CommandContext(t.Context(), program, "run", "--netns", link, "--state-dir", t.TempDir(), "--restore")
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
	p := newPatient(t)
	p.run("prepare")
	seat := podtest.NewNIC(t, p.pod.NS, "tap-eth0")
	stderr, err := p.process(nil, "restore")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != exitFailed ||
		!strings.Contains(stderr, "tap-eth0") || !strings.Contains(stderr, "--force") {
		t.Errorf("restore: %v: %s", err, stderr)
	}
	if stderr, err := p.process(nil, "restore", "--force"); err != nil {
		t.Errorf("restore --force: %v: %s", err, stderr)
	}
	_ = seat.Close()
	p.same("after restore --force")
}

// An error of the kernel's is not taken for a kernel without nftables: the tables
// of a prepared pod would be made once more.
func TestUnreadableTables(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.run("prepare")
	before := p.prepared()
	failed := 0
	for n := 1; n < 60; n++ {
		stderr, done, err := p.tampered("prepare", "sendmsg", "error=EINVAL", n)
		if done {
			break
		}
		if err != nil {
			failed++
		}
		if d := podtest.Diff(before, p.prepared()); d != "" {
			t.Fatalf("sendmsg %d failed: %v: %s:\n%s", n, err, stderr, d)
		}
	}
	if failed == 0 {
		t.Error("prepare never failed")
	}
}
