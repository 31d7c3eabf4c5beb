package flood_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// server is the built program, serving a pod.
type server struct {
	pod    *podtest.Pod
	mac    net.HardwareAddr // the guest's
	tap    string
	binary string
	dir    string // its state
	pid    int
	output podtest.Buffer
}

// serve starts the program on a pod of its own and returns when it serves. It
// is ended, and has to end well, at the test's end.
func serve(t *testing.T, shape podtest.Shape) *server {
	t.Helper()
	s := &server{pod: podtest.NewPod(t, shape), binary: podtest.Built(t, "virt-launcher-net"), dir: filepath.Join(t.TempDir(), "state")}
	s.mac, s.tap = s.pod.MAC, "tap-"+s.pod.Interface
	ready, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ready.Close() })
	cmd := exec.CommandContext(t.Context(), s.binary, "run", "--no-check", "--netns", s.pod.Path(), "--state-dir", s.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdout, cmd.Stderr = stdout, &s.output
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	err = cmd.Start()
	stdout.Close()
	if err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	t.Cleanup(func() { // t.Context has ended, so it has been told
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("%v\n%s", err, s.log())
		}
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil { // it prints when a guest could boot
		t.Fatalf("the program does not serve: %v\n%s", err, s.log())
	}
	return s
}

// log is what the program has logged so far.
func (s *server) log() string { return s.output.String() }

// partStatus is what the test reads of a part of the status.
type partStatus struct {
	State    string            `json:"state"`
	Received map[string]uint64 `json:"received"`
	Dropped  map[string]uint64 `json:"dropped"`
}

// status is a part of what the program says of its only interface.
func (s *server) status(t *testing.T, part string) partStatus {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), s.binary, "status", "-o", "json", "--netns", s.pod.Path(), "--state-dir", s.dir).Output()
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	var all struct {
		Interfaces []map[string]json.RawMessage `json:"interfaces"`
	}
	if err := json.Unmarshal(out, &all); err != nil || len(all.Interfaces) != 1 {
		t.Fatalf("status is %s: %v", out, err)
	}
	var status partStatus
	if err := json.Unmarshal(all.Interfaces[0][part], &status); err != nil {
		t.Fatalf("%s in %s: %v", part, out, err)
	}
	return status
}

// usage is what the program has taken.
type usage struct {
	rss     int // bytes
	threads int
	files   int
	cpu     time.Duration
}

// usage reads proc(5).
func (s *server) usage(t *testing.T) usage {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", s.pid)
	threads, err := os.ReadDir(proc + "task")
	if err != nil {
		t.Fatal(err)
	}
	statm, err := os.ReadFile(proc + "statm")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(statm))[1])
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')'):])) // from the third on
	var ticks time.Duration
	for _, field := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return usage{
		rss: pages * os.Getpagesize(), threads: len(threads), files: s.files(t),
		cpu: ticks * time.Second / 100, // USER_HZ is 100 on all of Go's platforms
	}
}

// files counts the program's descriptors, but for those in its state directory:
// what it knows of the leases is written there after each step of one.
func (s *server) files(t *testing.T) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd/", s.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		file, err := os.Readlink(dir + entry.Name())
		if errors.Is(err, os.ErrNotExist) {
			continue // closed since
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(file, s.dir) {
			n++
		}
	}
	return n
}

// notMoreThan tells what is more than before, beyond what may be.
func (u usage) notMoreThan(t *testing.T, before usage) {
	t.Helper()
	if u.rss > before.rss+moreRSS {
		t.Errorf("RSS was %d KiB, is %d KiB after the flood", before.rss>>10, u.rss>>10)
	}
	if u.threads > before.threads+moreThreads {
		t.Errorf("%d threads before the flood, %d after", before.threads, u.threads)
	}
	if u.files != before.files {
		t.Errorf("%d file descriptors before the flood, %d after", before.files, u.files)
	}
}
