package flood_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// server is the built program, serving a pod.
type server struct {
	*launchtest.Program
	pod *podtest.Pod
	mac net.HardwareAddr // the guest's
	tap string
}

// serve starts the program on a pod of its own and returns when it serves. It
// is ended, and has to end well, at the test's end.
func serve(t *testing.T, shape podtest.Shape) *server {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	s := &server{launchtest.NewProgram(t, pod), pod, pod.MAC, "tap-" + pod.Interface}
	s.Serve(t, "--no-check")
	return s
}

// log is what the program has logged so far.
func (s *server) log() string { return s.Log.String() }

// partStatus is what the test reads of a part of the status.
type partStatus struct {
	State    string            `json:"state"`
	Received map[string]uint64 `json:"received"`
	Dropped  map[string]uint64 `json:"dropped"`
}

// status is a part of what the program says of its only interface.
func (s *server) status(t *testing.T, part string) partStatus {
	t.Helper()
	var parts map[string]json.RawMessage
	s.Status(t, &parts)
	var status partStatus
	if err := json.Unmarshal(parts[part], &status); err != nil {
		t.Fatalf("%v in %s", err, parts[part])
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
	proc := fmt.Sprintf("/proc/%d/", s.Process.Pid)
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
	dir := fmt.Sprintf("/proc/%d/fd/", s.Process.Pid)
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
		if !strings.HasPrefix(file, s.StateDir) {
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
