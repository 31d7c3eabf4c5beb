// Package kernels boots the kernels that nodes run in virtual machines and runs
// the tests of the package inside in each. "make test-kernels" runs it.
package kernels

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// versions are those that build.sh fetches.
var versions = []string{"5.10", "6.1", "6.12"}

// bound is how long a machine may run. The tests in it end themselves before.
const bound = 20 * time.Minute

// TestKernels boots all kernels at once, and has a subtest for each test that ran in
// one of them.
func TestKernels(t *testing.T) {
	if os.Getenv("VLN_TEST_KERNELS") == "" {
		t.Skip("needs kernels and minutes: run make test-kernels")
	}
	t.Parallel()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			m := boot(t, version, "")
			for _, test := range m.tests(t) {
				t.Run(test.name, test.report)
			}
		})
	}
}

// TestSELinux boots a kernel with SELinux on.
func TestSELinux(t *testing.T) {
	if os.Getenv("VLN_TEST_KERNELS") == "" {
		t.Skip("needs kernels and minutes: run make test-kernels")
	}
	t.Parallel()
	m := boot(t, "6.1", "security=selinux selinux=1 VLN_RUN=TestSELinux")
	for _, test := range m.tests(t) {
		t.Run(test.name, func(t *testing.T) {
			if test.outcome == "skip" {
				t.Errorf("it was skipped: %s", &test.output)
			}
			test.report(t)
		})
	}
}

// TestNICs boots a kernel that has drivers of physical NICs in a machine that has such: two
// of each model, connected to each other, for package inside to tell apart by their MACs.
func TestNICs(t *testing.T) {
	if os.Getenv("VLN_TEST_KERNELS") == "" {
		t.Skip("needs kernels and minutes: run make test-kernels")
	}
	t.Parallel()
	models := []string{"virtio-net-pci", "e1000", "e1000e", "rtl8139"}
	var devices []string
	for i, model := range models {
		for j := range 2 {
			devices = append(devices, "-netdev", fmt.Sprintf("hubport,hubid=%d,id=nic%d-%d", i, i, j),
				"-device", fmt.Sprintf("%s,netdev=nic%d-%d,mac=52:54:00:00:%02x:%02x,romfile=", model, i, j, i, j))
		}
	}
	m := boot(t, "6.1-nics", "VLN_RUN=TestNICs", devices...)
	passed := 0
	for _, test := range m.tests(t) {
		t.Run(test.name, test.report)
		if test.outcome == "pass" && strings.Count(test.name, "/") == 2 {
			passed++
		}
	}
	if want := 2 * len(models); passed != want { // by each datapath
		t.Errorf("%d passed, want %d", passed, want)
	}
}

// README names the kernels that are tested, and no other.
func TestVersions(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile(`(?m)^\| kernel \|.*$`).Find(readme)
	want := fmt.Sprintf("| kernel | Linux %s and 6.18;", strings.Join(versions, ", "))
	if !strings.HasPrefix(string(row), want) {
		t.Errorf("README says %q, which should begin with %q", row, want)
	}
}

// machine is a virtual machine that has ended.
type machine struct {
	console string // what its kernel printed
	result  []byte // what its tests printed
}

// boot runs the tests on a kernel, which is told these further parameters, in a machine with
// further devices. The test ends if they did not come to their end there.
func boot(t *testing.T, version, parameters string, devices ...string) machine {
	t.Helper()
	dir := t.TempDir()
	console, result := filepath.Join(dir, "console"), filepath.Join(dir, "result")
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	args := append([]string{
		"-accel", "tcg", "-cpu", "max", "-m", "1024",
		// Its time is that of its instructions, two nanoseconds each, and when it is idle
		// it goes on to its next timer: the load of this machine makes nothing time out,
		// and waiting costs nothing.
		"-icount", "shift=1,sleep=off", "-rtc", "clock=vm",
		"-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", podtest.Built(t, filepath.Join("kernels", version, "vmlinux")),
		"-initrd", initramfs(t, version, dir),
		// Emulated on a busy machine, the timer can fail the kernel's check of it.
		// Programs at the same addresses each time are translated once.
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off norandmaps " + parameters,
		"-serial", "file:" + console, "-serial", "file:" + result,
	}, devices...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, runErr := cmd.CombinedOutput()
	m := machine{console: tail(t, console, 40)}
	var err error
	if m.result, err = os.ReadFile(result); err != nil {
		t.Fatalf("%v: QEMU printed: %s", err, said)
	}
	release, began := m.line("VLN-KERNEL ")
	_, ended := m.line("VLN-END ")
	switch {
	case !began:
		t.Fatalf("kernel %s does not boot: %v %s; its console ends with:\n%s", version, runErr, said, m.console)
	case !strings.HasPrefix(release, strings.TrimSuffix(version, "-nics")+"."):
		t.Fatalf("it is kernel %s, not %s", release, version)
	case !ended: // what ended before is told all the same
		t.Errorf("the tests did not come to their end: %v %s; the console ends with:\n%s", runErr, said, m.console)
	}
	t.Logf("Linux %s", release)
	return m
}

// initramfs joins what build.sh made with the program and its tests.
func initramfs(t *testing.T, version, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "initramfs")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, part := range []string{filepath.Join("tools", "cpio"), filepath.Join("policy", "cpio"), filepath.Join(version, "modules")} {
		b, err := os.ReadFile(podtest.Built(t, filepath.Join("kernels", part)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	cpio := exec.CommandContext(t.Context(), "cpio", "--quiet", "--create", "--format=newc", "--owner=+0:+0")
	cpio.Dir = filepath.Dir(podtest.Built(t, filepath.Join("kernels", "programs", "inside.test")))
	cpio.Stdin, cpio.Stdout = strings.NewReader("virt-launcher-net\ninside.test\ncni\ncni/host-device\ncni/static\n"), file
	if err := cpio.Run(); err != nil {
		t.Fatalf("cpio: %v", err)
	}
	return path
}

// tail is what a file ends with.
func tail(t *testing.T, path string, lines int) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// line is what follows the word in a line that begins with it.
func (m machine) line(word string) (string, bool) {
	for line := range strings.Lines(string(m.result)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			return strings.TrimSpace(rest), true
		}
	}
	return "", false
}

// ran is a test that ran in a machine.
type ran struct {
	name, outcome string // outcome: pass, fail, skip; empty: it did not end
	output        strings.Builder
}

func (r *ran) report(t *testing.T) {
	switch r.outcome {
	case "pass":
		if r.output.Len() > 0 {
			t.Log(r.output.String())
		}
	case "skip":
		t.Skip(r.output.String())
	case "fail":
		t.Error(r.output.String())
	default:
		t.Errorf("it did not end; it printed:\n%s", &r.output)
	}
}

// tests are all that ran, in the order in which they began.
func (m machine) tests(t *testing.T) []*ran {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(m.result)
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("go tool test2json: %v", err)
	}
	var tests []*ran
	byName := map[string]*ran{}
	for events := json.NewDecoder(bytes.NewReader(text)); ; {
		var e struct{ Action, Test, Output string }
		if err := events.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		r := byName[e.Test]
		if r == nil {
			r = &ran{name: e.Test}
			byName[e.Test] = r
			if e.Test != "" {
				tests = append(tests, r)
			}
		}
		switch e.Action {
		case "output":
			if !strings.HasPrefix(e.Output, "=== ") && !strings.HasPrefix(strings.TrimSpace(e.Output), "--- ") {
				r.output.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			r.outcome = e.Action
		}
	}
	if len(tests) == 0 {
		t.Fatalf("no test ran; printed was:\n%s", m.result)
	}
	if all := byName[""]; all.outcome != "pass" {
		t.Errorf("the tests failed; beside what each printed, there was:\n%s", &all.output)
	}
	return tests
}
