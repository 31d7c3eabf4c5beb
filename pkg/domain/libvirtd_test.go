//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startLibvirtd runs a libvirtd of the test's own until its end, and returns a descriptor of
// its process and the parameters which lead a URI to it.
func startLibvirtd(t *testing.T) (process int, socket string) {
	t.Helper()
	dir := t.TempDir()
	conf, pidFile := filepath.Join(dir, "libvirtd.conf"), filepath.Join(dir, "pid")
	writeFile(t, conf, fmt.Sprintf("auth_unix_rw = \"none\"\nunix_sock_dir = %q\nlog_outputs = \"3:file:%s/log\"\n", dir, dir))
	// As a daemon it returns once it answers.
	if out, err := exec.CommandContext(t.Context(), "libvirtd", "-d", "-f", conf, "-p", pidFile).CombinedOutput(); err != nil {
		t.Fatalf("libvirtd: %v\n%s", err, out)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if process, err = unix.PidfdOpen(pid, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0) // an error: it has ended
		_ = unix.Close(process)
	})
	return process, "?socket=" + dir + "/libvirt-sock"
}

// The whole life of a domain through a libvirtd, which at last dies.
func TestLibvirtd(t *testing.T) {
	if !inChild(t) {
		return
	}
	process, socket := startLibvirtd(t)
	uri := "test+unix:///default" + socket

	vm, err := Start(t.Context(), nil, uri, fmt.Appendf(nil, testXML, "first"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(vm.Shutdown(bounded(t)), vm.Wait(bounded(t)), vm.Close()); err != nil {
		t.Error(err)
	}

	log := &bytes.Buffer{}
	vm, err = Start(t.Context(), slog.New(slog.NewTextHandler(log, nil)), uri, fmt.Appendf(nil, testXML, "second"))
	if err != nil {
		t.Fatal(err)
	}
	checkStopsAnswering(t, vm, process)
	if err := unix.PidfdSendSignal(process, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error)
	go func() { asked <- vm.Shutdown(bounded(t)) }()
	if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := <-asked; !errors.Is(err, ErrDisconnected) {
		t.Errorf("Shutdown while libvirtd ends: %v", err)
	}
	var stop *StopError
	lost := vm.Wait(bounded(t))
	if !errors.Is(lost, ErrDisconnected) || errors.As(lost, &stop) || !strings.Contains(lost.Error(), "virsh -c '"+uri+"' destroy second ends it") {
		t.Errorf("Wait without libvirtd: %v", lost)
	}
	if err := vm.Shutdown(bounded(t)); !errors.Is(err, lost) { // told once, where both are
		t.Errorf("Shutdown without libvirtd: %v", err)
	}
	if text := log.String(); strings.Contains(text, "destroying") {
		t.Errorf("the log is untrue:\n%s", text)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close without libvirtd: %v", err)
	}
}

// Who can't wait does not wait for a libvirtd that is frozen, and hears what is left.
func TestFrozenLibvirtd(t *testing.T) {
	if !inChild(t) {
		return
	}
	process, socket := startLibvirtd(t)
	vm, err := Start(t.Context(), nil, "test+unix:///default"+socket, fmt.Appendf(nil, testXML, "vm"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.PidfdSendSignal(process, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel) // while it is asked
	start := time.Now()
	if err := vm.Shutdown(ctx); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "destroy vm ends it") {
		t.Errorf("Shutdown without an answer: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close without an answer: %v", err)
	}
	if took := time.Since(start); took > answerTime+undoTime {
		t.Errorf("it took %s", took)
	}
}

// checkStopsAnswering checks that Start returns when a libvirtd which is alive
// does not answer.
func checkStopsAnswering(t *testing.T, vm *VM, process int) {
	t.Helper()
	if err := unix.PidfdSendSignal(process, unix.SIGSTOP, nil, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Start(ctx, nil, vm.uri, fmt.Appendf(nil, testXML, "third")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start without an answer: %v", err)
	}
	if err := unix.PidfdSendSignal(process, unix.SIGCONT, nil, 0); err != nil {
		t.Fatal(err)
	}
}

// Where there is no libvirt.so.0, Start says so. The library is loaded when the
// program starts, so it has to be hidden before.
func TestStartWithoutLibrary(t *testing.T) {
	if os.Getenv(childMark) == "" {
		maps, err := os.ReadFile("/proc/self/maps")
		if err != nil {
			t.Fatal(err)
		}
		library := regexp.MustCompile(`/\S+/libvirt\.so\.0\S*`).FindString(string(maps))
		if library == "" {
			t.Fatal("libvirt.so.0 is not loaded")
		}
		runChild(t, `mount --bind /dev/null "$1" &&`, library)
		return
	}
	_, err := Start(t.Context(), nil, testURI, fmt.Appendf(nil, testXML, "x"))
	if err == nil || !strings.Contains(err.Error(), "load libvirt: Failed to open libvirt.so.0: is it installed here") {
		t.Errorf("got %v", err)
	}
}
