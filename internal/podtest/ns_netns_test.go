package podtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that TestKilled kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("PODTEST_PEER"); path != "" {
		if err := holdNamespace(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// holdNamespace makes a namespace with a veth pair to the one at path and a
// process in it, says so, and waits to be killed.
func holdNamespace(path string) error {
	ns, err := NewNS()
	if err != nil {
		return err
	}
	if err := ns.Batch(context.Background(), "link add here type veth peer name there netns "+path); err != nil {
		return err
	}
	sleep := ns.Command(context.Background(), "sleep", "600")
	if err := sleep.Start(); err != nil {
		return err
	}
	fmt.Println(sleep.Process.Pid)
	return sleep.Wait()
}

func currentNS(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDo(t *testing.T) {
	t.Parallel()
	outer, inner := New(t), New(t)
	// Both the thread's own namespace and the names of those it goes through.
	own, seen := currentNS(t), []string{}
	failure := errors.New("failure")
	err := outer.Do(func() error {
		seen = append(seen, currentNS(t))
		if err := inner.Do(func() error { seen = append(seen, currentNS(t)); return failure }); !errors.Is(err, failure) {
			t.Errorf("inner Do returned %v, want the function's error", err)
		}
		seen = append(seen, currentNS(t))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if now := currentNS(t); now != own {
		t.Errorf("after Do the thread is in %s, was in %s", now, own)
	}
	if seen[0] == own || seen[1] == own || seen[0] == seen[1] || seen[2] != seen[0] {
		t.Errorf("own %s, outer %s, inner %s, outer again %s", own, seen[0], seen[1], seen[2])
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	ns := New(t)
	ns.IP(t, "link add marker0 type bridge")
	out, err := exec.Command("nsenter", "--net="+ns.Path(), "ip", "-br", "link").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "marker0") {
		t.Errorf("nsenter --net=%s: %v\n%s", ns.Path(), err, out)
	}
	if out := ns.Run(t, "ip", "-br", "addr", "show", "dev", "lo"); !strings.Contains(out, "127.0.0.1/8") {
		t.Errorf("loopback is not up: %s", out)
	}
}

func TestOutputTellsWhatFailed(t *testing.T) {
	t.Parallel()
	ns := New(t)
	if _, err := ns.Output(t.Context(), "ip", "link", "show", "dev", "nosuch0"); err == nil || !strings.Contains(err.Error(), `"nosuch0" does not exist`) {
		t.Errorf("error does not say what ip said: %v", err)
	}
	if err := ns.Batch(t.Context(), "link add ok0 type bridge", "link set nosuch0 up"); err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("error does not name the line: %v", err)
	}
	if err := ns.Sysctl("net/ipv4/nosuch", "1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Sysctl of an unknown key: %v", err)
	}
}

// The peer of a link in a namespace that ended is gone too: that is how the
// end is seen.
func TestCloseEndsNamespace(t *testing.T) {
	t.Parallel()
	witness := New(t)
	ns, err := NewNS()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Batch(t.Context(), "link add here type veth peer name there netns "+witness.Path()); err != nil {
		t.Fatal(err)
	}
	gone := linkGone(t, witness, "there")
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	gone()
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	t.Parallel()
	witness := New(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "PODTEST_PEER="+witness.Path())
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(bufio.NewReader(stdout), &pid); err != nil {
		t.Fatalf("child did not tell its process: %v", err)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	gone := linkGone(t, witness, "there")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000)
	for errors.Is(err, unix.EINTR) { // by the runtime, which preempts goroutines so
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, 5000)
	}
	if n != 1 || err != nil {
		t.Errorf("process %d in the namespace outlived its parent: %v", pid, err)
	}
	gone()
}

// linkGone starts to watch for a link's deletion; the function it returns
// waits for that.
func linkGone(t *testing.T, ns *NS, name string) func() {
	t.Helper()
	events, err := openEvents(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	return func() {
		t.Helper()
		if err := events.SetReadDeadline(time.Now().Add(Patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<16)
		for {
			if _, err := ns.Output(t.Context(), "ip", "link", "show", "dev", name); err != nil {
				return
			}
			if _, err := events.Read(buf); err != nil {
				t.Fatalf("link %s is still there: %v", name, err)
			}
		}
	}
}
