package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A terminal that closes ends the program as SIGTERM does, though nobody reads
// its log any more; nohup(1) keeps it.
func TestHangup(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		wrap    []string
		ignored bool
		end     syscall.Signal
	}{
		{"terminal", []string{"env", "--default-signal=HUP"}, false, syscall.SIGHUP}, // these tests may run under nohup(1) themselves
		{"nohup", []string{"nohup"}, true, syscall.SIGTERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.CalicoDual)
			stateDir := t.TempDir()
			line := append(c.wrap, os.Args[0], "run", "--state-dir", stateDir)
			cmd := pod.Command(t.Context(), line[0], line[1:]...)
			logs, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := startMain(cmd); err != nil {
				t.Fatal(err)
			}
			logs.Close()
			if got := ignoresHangup(t, cmd.Process.Pid); got != c.ignored {
				t.Errorf("SIGHUP is ignored: %t", got)
			}
			if err := errors.Join(cmd.Process.Signal(c.end), cmd.Wait()); err != nil {
				t.Errorf("ended with %v", err)
			}
			if _, err := os.Stat(filepath.Join(stateDir, "control.sock")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket was left behind: %v", err)
			}
		})
	}
}

// ignoresHangup looks at what the kernel has noted of a process.
func ignoresHangup(t *testing.T, pid int) bool {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, mask, _ := strings.Cut(string(status), "SigIgn:\t")
	ignored, err := strconv.ParseUint(mask[:16], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return ignored&(1<<(syscall.SIGHUP-1)) != 0
}
