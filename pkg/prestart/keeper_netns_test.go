package prestart_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What is deleted of the state directory under a server is made again, and never
// lets a second one in.
func TestDeletedUnderServer(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(dir string) error{
		"socket":    func(dir string) error { return os.Remove(filepath.Join(dir, "control.sock")) },
		"record":    func(dir string) error { return os.Remove(filepath.Join(dir, "eth0.json")) },
		"lock":      func(dir string) error { return os.Remove(filepath.Join(dir, "lock")) },
		"directory": os.RemoveAll,
		"moved":     func(dir string) error { return os.Rename(dir, dir+".away") },
		"replaced": func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "new"), nil, 0o600),
				os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "control.sock")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Calico)
			before := podtest.TakeSnapshot(t, pod.NS)
			h := newHook(t, pod)
			session := run(t, h)
			record := readIn(t, h.StateDir, "eth0.json")
			if err := remove(h.StateDir); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another virt-launcher-net serves this pod already") {
				t.Errorf("a second server: %v", err)
			}
			eventually(t, h.StateDir, func() bool {
				status, err := h.Status(t.Context())
				return err == nil && status.Prepared && status.Server.Alive && status.Server.RecordError == ""
			})
			if _, err := asker(h).Wait(t.Context(), control.ForNetwork); err != nil {
				t.Error(err)
			}
			if again := readIn(t, h.StateDir, "eth0.json"); again != record {
				t.Errorf("the record is\n%s\nwas\n%s", again, record)
			}
			if err := session.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Restore(t.Context()); err != nil {
				t.Fatal(err)
			}
			if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("after restore\n%s", d)
			}
		})
	}
}

// What can't be made again at once, for something is in the directory's place, is
// tried again: the server is the last one that knows the record.
func TestDirectoryComesLater(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	said := make(chan string, 256)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)
	record := readIn(t, h.StateDir, "eth0.json")
	away := h.StateDir + ".away"
	if err := os.WriteFile(away, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Renameat2(unix.AT_FDCWD, h.StateDir, unix.AT_FDCWD, away, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	until(t, said, "can't write again what was deleted or damaged in the state directory")
	if session.Status().RecordError == "" {
		t.Error("status does not say that the record is not on disk")
	}
	if err := os.Remove(h.StateDir); err != nil {
		t.Fatal(err)
	}
	eventually(t, h.StateDir, func() bool {
		status, err := h.Status(t.Context())
		return err == nil && status.Prepared && status.Server.Alive && status.Server.RecordError == ""
	})
	if again := readIn(t, h.StateDir, "eth0.json"); again != record {
		t.Errorf("the record is\n%s\nwas\n%s", again, record)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore\n%s", d)
	}
}

// Of one who deletes the control socket again and again the log tells at the start.
func TestDeletedAgainAndAgain(t *testing.T) {
	t.Parallel()
	h := newHook(t, podtest.NewPod(t, podtest.Calico))
	said := make(chan string, 256)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)
	for range 15 {
		if err := os.Remove(filepath.Join(h.StateDir, control.SocketName)); err != nil {
			t.Fatal(err)
		}
		eventually(t, h.StateDir, func() bool { return asks(t, h) == nil })
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	close(said)
	told := 0
	for line := range said {
		if strings.Contains(line, "a file of the state directory was deleted") {
			told++
		}
	}
	if told != 10 {
		t.Errorf("the log tells of it %d times", told)
	}
}

func asks(t *testing.T, h prestart.Hook) error {
	_, err := asker(h).Status(t.Context())
	return err
}

// eventually waits until the condition holds, looking at it after each change in
// the directory or above it, and now and then: the server may say a bit later that it
// made one.
func eventually(t *testing.T, dir string, condition func() bool) {
	t.Helper()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	for {
		if err := watcher.Add(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if condition() {
			return
		}
		select {
		case <-watcher.Events:
		case <-time.After(time.Second):
		case <-ctx.Done():
			t.Fatal("it does not come to be")
		}
	}
}

// restore under a server deletes the record for good. This server has nothing to
// lease, so it does not end with its tap.
func TestRestoreUnderServer(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path(), "link set net1 up")
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"net1"}, true
	run(t, h)
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Once it has looked after the socket, it has looked after the record.
	socket := filepath.Join(h.StateDir, "control.sock")
	for range 2 {
		if err := os.Remove(socket); err != nil {
			t.Fatal(err)
		}
		eventually(t, h.StateDir, func() bool { _, err := os.Lstat(socket); return err == nil })
	}
	if _, err := os.Lstat(filepath.Join(h.StateDir, "net1.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the record is there again: %v", err)
	}
}
