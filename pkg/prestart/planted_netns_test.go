package prestart_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// planted are things that somebody may put where a file of ours is looked for.
var planted = map[string]func(path string) error{
	"fifo":      func(path string) error { return unix.Mkfifo(path, 0o666) },
	"device":    func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))) }, // zero
	"symlink":   func(path string) error { return os.Symlink("/dev/zero", path) },
	"dangling":  func(path string) error { return os.Symlink(filepath.Dir(path)+"/../made", path) },
	"directory": func(path string) error { return os.MkdirAll(path+"/full", 0o777) },
	"sparse":    func(path string) error { return sparse(path, 1<<40) },
	"another user's": func(path string) error {
		return errors.Join(os.WriteFile(path, []byte("{}"), 0o666), os.Chown(path, 65534, 65534))
	},
	"socket": func(path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	},
}

func sparse(path string, size int64) error {
	return errors.Join(os.WriteFile(path, nil, 0o666), os.Truncate(path, size))
}

// Whatever somebody has put into the state directory, each verb ends in time, and
// none reads without bound, follows a link, or writes outside.
func TestPlanted(t *testing.T) {
	t.Parallel()
	for kind, plant := range planted {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Calico)
			before := podtest.TakeSnapshot(t, pod.NS)
			for _, name := range []string{"x.json", "eth0.json", "eth0.lease", "lock", "control.sock", "control.sock.new", "control.sock.1"} {
				h := newHook(t, pod)
				dir := filepath.Join(t.TempDir(), "state")
				h.StateDir, h.SkipCheck = dir, true
				if err := os.Mkdir(dir, 0o777); err != nil {
					t.Fatal(err)
				}
				if err := plant(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
				for _, verb := range []struct {
					name string
					do   func(ctx context.Context) error
				}{
					{"status", func(ctx context.Context) error { _, err := h.Status(ctx); return err }},
					{"wait", func(ctx context.Context) error {
						ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
						defer cancel()
						if _, err := asker(h).Wait(ctx, control.ForNetwork); err == nil {
							t.Errorf("%s: nobody serves, and wait says that somebody does", name)
						}
						return nil
					}},
					{"restore", func(ctx context.Context) error { _, err := h.Restore(ctx); return err }},
					{"run", func(ctx context.Context) error {
						session, err := h.Run(ctx)
						if err == nil {
							err = session.Close(ctx)
						}
						return err
					}},
					{"restore", func(ctx context.Context) error { _, err := h.Restore(ctx); return err }},
				} {
					if err := inTime(t, verb.do); err != nil && !strings.Contains(err.Error(), filepath.Join(dir, name)) {
						t.Errorf("%s of a pod with %s: %v", verb.name, name, err)
					}
				}
				if _, err := os.Lstat(filepath.Join(dir, "..", "made")); err == nil {
					t.Errorf("%s: a file was made outside of the directory", name)
				}
				if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
					t.Fatalf("%s: afterwards\n%s", name, d)
				}
			}
		})
	}
}

// inTime ends the test if fn takes longer than even a busy machine needs.
func inTime(t *testing.T, fn func(ctx context.Context) error) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(podtest.Patience + 10*time.Second):
		t.Fatal("it does not return")
		return nil
	}
}

// Only root, the user and the owner of the directory are believed; of these, too,
// what they say is bounded, printable, and about this network namespace.
func TestAnswersOfOthers(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	if err := os.Mkdir(h.StateDir, 0o777); err != nil {
		t.Fatal(err)
	}
	inode := strings.Trim(strings.TrimPrefix(readlink(t, pod.NS), "net:"), "[]")
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	ours := strings.TrimSpace(string(bootID)) + " " + inode
	for _, c := range []struct {
		name, namespace, body string
		user                  int
		want                  string
	}{
		{"without namespace", "", `{"ready":true}`, 0, "does not say which network namespace"},
		{"another namespace", "x 1", `{"ready":true}`, 0, "serves another network namespace"},
		{"another user", ours, `{"ready":true}`, 65534, "of user 65534 listens there"},
		{"without end", ours, "endless", 0, "its answer has more than"},
		{"no JSON", ours, "\x1b[2J", 0, "its answer can't be read"},
		{"escapes", ours, `{"ready":true,"domain":"\u001b[2J\u202e\n","interfaces":[]}`, 0, ""},
		{"another version", ours, `{"ready":true,"leases":{"eth0":{}}}`, 0, "another version of this program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(h.StateDir, "control.sock")
			listener := listenAs(t, path, c.user)
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Network-Namespace", c.namespace)
				for c.body == "endless" {
					if _, err := w.Write([]byte(strings.Repeat("[", 1<<16))); err != nil {
						return
					}
				}
				_, _ = w.Write([]byte(c.body))
			})}
			go server.Serve(listener) //nolint:errcheck // closed below
			defer server.Close()
			var status prestart.Status
			var err error
			unlessBusy(t, func() bool {
				status, err = h.Status(t.Context())
				return !strings.Contains(status.Server.Error, control.ErrNoAnswer.Error())
			})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(status.Server.Error, c.want) || status.Server.Alive != (c.want == "") {
				t.Errorf("status says %+v", status.Server)
			}
			if c.want == "" && status.Server.Domain != "?[2J??" {
				t.Errorf("the domain is %q", status.Server.Domain)
			}
			_, err = asker(h).Wait(t.Context(), control.ForNetwork)
			if c.want != "" && c.name != "another version" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("wait says %v", err)
			}
		})
	}
}

// unlessBusy asks again while the answer is late, as on a busy machine.
func unlessBusy(t *testing.T, ask func() (answered bool)) {
	t.Helper()
	for start := time.Now(); !ask(); {
		if time.Since(start) > podtest.Patience {
			t.Fatal("there is no answer")
		}
	}
}

// listenAs listens as a process of that user does.
func listenAs(t *testing.T, path string, uid int) net.Listener {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	become := func(uid int) { // this thread alone
		keep := ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, uintptr(uid), keep); errno != 0 {
			t.Fatal(errno)
		}
	}
	_ = os.Remove(path)
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	become(uid)
	err = errors.Join(err, unix.Listen(fd, 8))
	become(0)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(file)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// A run that finds another namespace's server at the socket changes nothing.
func TestSocketOfAnotherPod(t *testing.T) {
	t.Parallel()
	a, b := podtest.NewPod(t, podtest.Flannel), podtest.NewPod(t, podtest.Calico)
	before := podtest.TakeSnapshot(t, b.NS)
	ha, hb := newHook(t, a), newHook(t, b)
	run(t, ha)
	if err := errors.Join(os.Mkdir(hb.StateDir, 0o700),
		os.Link(filepath.Join(ha.StateDir, "control.sock"), filepath.Join(hb.StateDir, "control.sock"))); err != nil {
		t.Fatal(err)
	}
	_, err := hb.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "serves another network namespace") || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("run beside another pod's server: %v", err)
	}
	if _, err := asker(hb).Wait(t.Context(), control.ForNetwork); err == nil || !strings.Contains(err.Error(), "serves another network namespace") {
		t.Errorf("wait says %v", err)
	}
	if left, err := os.ReadDir(hb.StateDir); err != nil || len(left) != 1 {
		t.Errorf("in the state directory are %v, %v", left, err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, b.NS)); d != "" {
		t.Errorf("afterwards\n%s", d)
	}
}
