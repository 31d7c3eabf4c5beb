package podtest

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a test has mounted that is killed, and the files of its guest, are removed by the
// next one; what belongs to one that lives stays.
func TestSweep(t *testing.T) {
	if os.Getenv("PODTEST_KILLED") != "" {
		pod := NewTapNS(t)
		NewGuest(t, pod, "tap0", []byte{2, 0, 0, 0, 0, 9})
		dir := t.TempDir()
		Mount(t, "none", dir, "tmpfs", "size=64k")
		os.Stdout.WriteString("mounted " + dir + "\n")
		select {}
	}
	t.Setenv("TMPDIR", t.TempDir())
	cmd := Command(t.Context(), nil, os.Args[0], "-test.run=^TestSweep$", "-test.v")
	cmd.Env = append(os.Environ(), "PODTEST_KILLED=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := ""
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		_, dir, _ = strings.Cut(lines.Text(), "mounted ")
	}
	mounts := func() bool {
		all, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(all), " "+dir+" ")
	}
	left := func() []string {
		all, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	if err := sweep(); err != nil || !mounts() || len(left()) != 3 {
		t.Errorf("it lives: error %v, mounted %t, there are %q", err, mounts(), left())
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if !mounts() {
		t.Fatalf("nothing is mounted on %q", dir)
	}
	if err := sweep(); err != nil || mounts() || len(left()) > 0 {
		t.Errorf("it was killed: error %v, mounted %t, there are %q", err, mounts(), left())
	}
}
