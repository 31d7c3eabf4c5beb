package statedir

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// One at a time serves a network namespace, and others are told who. The lock of flock(2)
// is free meanwhile, and whoever has it for a moment is no server.
func TestServing(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		testServing(t)
	}()
	<-done
}

func testServing(t *testing.T) {
	ns, err := Current()
	if err != nil {
		t.Error(err)
		return
	}
	file, err := os.Open(current)
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	isRefused := func(when string) {
		_, err := Serve(t.Context())
		if served, is := errors.AsType[*ServedError](err); !is || served.PID != os.Getpid() {
			t.Errorf("%s: %v", when, err)
		}
	}
	for range 2 {
		serving, err := Serve(t.Context())
		if err != nil {
			t.Error(err)
			return
		}
		if pid := ServerOf(ns); pid != os.Getpid() {
			t.Errorf("process %d serves, want %d", pid, os.Getpid())
		}
		if err := tryLock(file); err != nil {
			t.Errorf("flock: %v", err)
		}
		unlock(file)
		isRefused("a second one")
		serving.Close()
		if err := tryLock(file); err != nil || ServerOf(ns) != 0 {
			t.Errorf("afterwards %v, process %d serves", err, ServerOf(ns))
		}
		isRefused("while another keeps the lock of flock")
		unlock(file)
	}
}
