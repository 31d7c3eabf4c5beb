//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// needRoot fails the test, or skips it if that was asked for, when it may not
// make namespaces.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("ALLOW_SKIP") == "1" {
		t.Skip("needs root for namespaces of its own")
	}
	t.Fatal("needs root for namespaces of its own (ALLOW_SKIP=1 skips this test)")
}

// childMark is set in the environment of the process a test has started to run
// itself there.
const childMark = "DOMAIN_TEST_CHILD"

// runChild runs the test in a process with mounts of its own, after the shell
// commands.
func runChild(t *testing.T, commands string, args ...string) {
	t.Helper()
	needRoot(t)
	run := append([]string{"-c", commands + `
		exec "$0" -test.v "-test.run=^$TEST$"`, os.Args[0]}, args...)
	cmd := exec.CommandContext(t.Context(), "sh", run...)
	cmd.Env = append(os.Environ(), childMark+"=1", "TEST="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// inChild runs the test in a process with mounts of its own, where libvirt
// finds the users it looks for and leaves nothing on the machine, and reports
// whether this is that process.
func inChild(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childMark) == "" {
		runChild(t, "")
		return false
	}
	for _, dir := range []string{"/run", "/var/lib", "/var/cache", "/var/log"} {
		if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
	}
	// Debian's libvirt looks them up even if qemu.conf names others.
	for name, line := range map[string]string{
		"/etc/passwd": "libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n",
		"/etc/group":  "libvirt-qemu:x:64055:\n",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("/run", filepath.Base(name))
		writeFile(t, file, string(b)+line)
		if err := unix.Mount(file, name, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
