package prestart_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A wait makes nothing, and what it returns tells a caller why.
func TestWaitForNobody(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.StateDir = filepath.Join(h.StateDir, "deep", "down")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errors.New("lunch"))
	defer cancel()
	_, err := asker(h).Wait(ctx, control.ForNetwork)
	for _, want := range []error{context.DeadlineExceeded, control.ErrNobodyServes} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := asker(h).Wait(canceled, control.ForNetwork); !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait that is given up: %v", err)
	}
	if _, err := os.Lstat(filepath.Dir(filepath.Dir(h.StateDir))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

// A wait hears of a server whose directory was not there, nor those above it, and
// is a path that no socket can have.
func TestWaitForDirectory(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.StateDir = filepath.Join(h.StateDir, strings.Repeat("d", 100), "down")
	got := make(chan error)
	go func() {
		_, err := asker(h).Wait(t.Context(), control.ForNetwork)
		got <- err
	}()
	time.Sleep(50 * time.Millisecond) // it waits by then, or not: it hears of it
	run(t, h)
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it does not hear of the server")
	}
}

// A server that has yet to listen is waited for.
func TestWaitForStart(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	var serving *statedir.Serving
	pod.In(t, func() (err error) {
		serving, err = statedir.Serve(t.Context())
		return err
	})
	defer serving.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := asker(h).Wait(ctx, control.ForNetwork)
	for _, want := range []error{context.DeadlineExceeded, control.ErrNoAnswer} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
}

// Who waits while a server ends is not answered, and goes on waiting for the next.
func TestWaitBeyondServer(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.SkipCheck = true
	first := run(t, h)
	conn, err := net.Dial("unix", filepath.Join(h.StateDir, "control.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/wait?for=lease HTTP/1.1\r\nHost: vm\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "link set "+wiringOf(t, "eth0").link+" down") // until the next one mends it
	waiting := make(chan error)
	go func() {
		_, err := asker(h).Wait(t.Context(), control.ForNetwork)
		waiting <- err
	}()
	if _, err := h.Status(t.Context()); err != nil { // asked later, so the first was heard
		t.Fatal(err)
	}
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("who asked first was answered %q, %v", answer, err)
	}
	run(t, h)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
}

// What is in the way of the files for the VMM is named before anything is changed.
func TestOutputInTheWay(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.OutputDir = t.TempDir()
	path := filepath.Join(h.OutputDir, prestart.NICsFile)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), path+" is a directory") {
		t.Errorf("run says %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("afterwards:\n%s", d)
	}
}
