package discover_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// container starts a process in the pod's network namespace, with a name and files
// of its own as a container's, once setup has run in it. It returns its number.
func container(t *testing.T, ns *podtest.NS, flags, setup string) int {
	t.Helper()
	cmd := ns.Command(t.Context(), "unshare", flags, "sh", "-ec", setup+"; echo ready; exec sleep 600")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatalf("start container: %v", err)
	}
	return cmd.Process.Pid // nsenter and unshare exec
}

// What a pod is called, and whom it asks for names, its own process knows; never is
// it what this process, outside of the pod, is called and asks.
func TestIdentityOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	node, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	file := func(t *testing.T, content string) string {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const ours = "search pod.example\nnameserver 10.96.0.7\n"
	bind := func(what string) string {
		return "hostname pod-7; mount --bind " + what + " /etc/resolv.conf"
	}
	for _, c := range []struct {
		name, flags string
		setup       func(t *testing.T) string // nil: there is no process
		hostname    string
		unknown     string // a part of why there is no DNS; empty: it is the pod's
	}{
		{name: "no process", unknown: "no process of the pod"},
		{name: "container", flags: "-um", setup: func(t *testing.T) string { return bind(file(t, ours)) }, hostname: "pod-7"},
		{
			name: "process of the node", flags: "-n", // its own network is another one still
			setup: func(*testing.T) string { return "true" }, unknown: "no process of the pod",
		},
		{
			name: "files of the node", flags: "-u",
			setup: func(*testing.T) string { return "hostname pod-8" }, hostname: "pod-8", unknown: "no process of the pod",
		},
		{
			name: "device", flags: "-um",
			setup: func(*testing.T) string { return bind("/dev/zero") }, hostname: "pod-7", unknown: "not a regular file",
		},
		{
			name: "FIFO", flags: "-um", setup: func(t *testing.T) string {
				fifo := filepath.Join(t.TempDir(), "fifo")
				return "mkfifo " + fifo + "; " + bind(fifo)
			}, hostname: "pod-7", unknown: "not a regular file",
		},
		{
			name: "link", flags: "-um", setup: func(t *testing.T) string {
				return "hostname pod-7; mount -t tmpfs none /etc; ln -s " + file(t, ours) + " /etc/resolv.conf"
			}, hostname: "pod-7", unknown: "not a regular file",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Calico)
			pid := 0
			if c.setup != nil {
				pid = container(t, pod.NS, c.flags, c.setup(t))
			}
			for _, hint := range []int{0, pid} {
				began := time.Now()
				got, err := readPod(t.Context(), t, pod.NS, discover.Options{Process: hint})
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				if got.Hostname != c.hostname || got.Hostname == node {
					t.Errorf("hostname %q, want %q", got.Hostname, c.hostname)
				}
				if c.unknown == "" && (len(got.DNS.Servers) != 1 || got.DNS.Servers[0].String() != "10.96.0.7" || got.DNS.Search[0] != "pod.example") {
					t.Errorf("DNS %+v", got.DNS)
				}
				if c.unknown != "" && (len(got.DNS.Servers) > 0 || !strings.Contains(got.DNS.Unknown, c.unknown)) {
					t.Errorf("DNS %+v, want %q", got.DNS, c.unknown)
				}
			}
		})
	}
}

// A pod's process is found on a node that has more processes than this one may have
// files open.
func TestIdentityAmongManyProcesses(t *testing.T) { // not parallel: the limit is the process's
	const files = 64
	for range 2 * files {
		cmd := exec.CommandContext(t.Context(), "sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	pod := podtest.NewPod(t, podtest.Calico)
	container(t, pod.NS, "-u", "hostname pod-9")
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := unix.Rlimit{Cur: uint64(len(open) + files), Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	got, err := readPod(t.Context(), t, pod.NS, discover.Options{})
	if limitErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); limitErr != nil {
		t.Fatal(limitErr)
	}
	if err != nil || got.Hostname != "pod-9" {
		t.Errorf("hostname %q, %v", got.Hostname, err)
	}
}

// told is closed once something is logged.
type told struct {
	slog.Handler
	done chan struct{}
	once *sync.Once
}

func (told) Enabled(context.Context, slog.Level) bool { return true }

func (h told) Handle(context.Context, slog.Record) error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// While the CNI is waited for, the pod's first process may start.
func TestIdentityOfAProcessThatComesLater(t *testing.T) {
	t.Parallel()
	ns := podtest.New(t)
	waiting := told{slog.DiscardHandler, make(chan struct{}), &sync.Once{}}
	read := make(chan error, 1)
	var got discover.Pod
	go func() {
		read <- ns.Do(func() (err error) {
			got, err = discover.ReadPod(t.Context(), discover.Options{Interfaces: []string{"eth0"}, Log: slog.New(waiting)})
			return err
		})
	}()
	<-waiting.done
	container(t, ns, "-u", "hostname pod-10")
	ns.IP(t, "link add eth0 type veth peer name peer", "link set peer up", "link set eth0 up", "addr add 10.9.0.7/24 dev eth0")
	if err := <-read; err != nil || got.Hostname != "pod-10" {
		t.Errorf("hostname %q, %v", got.Hostname, err)
	}
}
