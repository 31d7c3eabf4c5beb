package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// process is the program as a process of its own, in the pod.
func process(t *testing.T, pod *podtest.Pod, args ...string) *exec.Cmd {
	t.Helper()
	cmd := pod.Pod.Command(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	return cmd
}

// Killed at any moment, the next prepare completes it and restore undoes it. The
// moments are spread over the time that a prepare takes.
func TestKilledPrepare(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	before := podtest.TakeSnapshot(t, pod.Pod)
	dir := filepath.Join(t.TempDir(), "state")
	run := func(verb string) {
		t.Helper()
		if out, err := process(t, pod, verb, "--state-dir", dir).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", verb, err, out)
		}
	}
	start := time.Now()
	run("prepare")
	took := time.Since(start)
	run("restore")

	const moments = 24
	inBetween := 0
	for i := range moments {
		cmd := process(t, pod, "prepare", "--state-dir", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(took*time.Duration(i+1)/moments, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // it may have been done already
		timer.Stop()
		after := podtest.TakeSnapshot(t, pod.Pod)
		if i%2 == 0 {
			run("prepare")
		}
		run("restore")
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.Pod)); d != "" {
			t.Fatalf("killed at moment %d of %d:\n%s", i, moments, d)
		}
		if after != before {
			inBetween++
		}
	}
	if inBetween == 0 {
		t.Error("no process was killed in between")
	}
}

// Of two at once one waits for the other and finds nothing to do.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	dir := filepath.Join(t.TempDir(), "state")
	var both sync.WaitGroup
	for range 2 {
		cmd := process(t, pod, "prepare", "--state-dir", dir)
		both.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("prepare: %v: %s", err, out)
			}
		})
	}
	both.Wait()
}
