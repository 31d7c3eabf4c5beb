package podtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is to run after a process does so also where that is killed.
func TestAfterDeath(t *testing.T) {
	const env = "PODTEST_AFTER_DEATH"
	if path := os.Getenv(env); path != "" {
		if err := AfterDeath(`echo dead >"$1"`, path); err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(os.Getpid(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fifo, err := os.OpenFile(path, os.O_RDWR, 0) // both, so that it waits for no writer
	if err != nil {
		t.Fatal(err)
	}
	defer fifo.Close()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestAfterDeath$")
	cmd.Env = append(os.Environ(), env+"="+path)
	if err := cmd.Run(); err == nil {
		t.Fatal("the process was not killed")
	}
	if err := fifo.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 16)
	if n, err := fifo.Read(text); err != nil || string(text[:n]) != "dead\n" {
		t.Errorf("after its end there is %q, %v", text[:n], err)
	}
}
