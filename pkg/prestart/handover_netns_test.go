package prestart_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

var allFiles = []string{
	prestart.CloudHypervisorFile, prestart.FirecrackerFile, prestart.InterfacesFile, prestart.NICsFile, prestart.QEMUFile,
}

func filesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o644 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		names = append(names, e.Name())
	}
	return names
}

func readIn(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What Prepare leaves starts a QEMU on the tap, whatever tap and NIC it is.
func TestHandedOverToQEMU(t *testing.T) {
	t.Parallel()
	podtest.Packaged(t, "/usr/bin/qemu-system-x86_64")
	for _, test := range []struct {
		name   string
		queues int
		model  string
		files  []string
		says   string // in the log
	}{
		{"one queue", 0, "", allFiles, ""},
		{
			"queues", 4, "",
			[]string{prestart.CloudHypervisorFile, prestart.InterfacesFile, prestart.NICsFile, prestart.QEMUFile},
			"Firecracker can't open a tap with 4 queues",
		},
		{
			"another model", 0, "e1000e",
			[]string{prestart.InterfacesFile, prestart.NICsFile, prestart.QEMUFile},
			"Cloud Hypervisor has no model e1000e",
		},
		{"virtio-transitional", 2, "virtio-transitional", nil, ""},
		{"virtio-non-transitional", 0, "virtio-non-transitional", nil, ""},
		{"rtl8139", 0, "rtl8139", nil, ""},
		{"vmxnet3", 0, "vmxnet3", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, podtest.Flannel)
			h := newHook(t, pod)
			var log bytes.Buffer
			h.Log = slog.New(slog.NewTextHandler(&log, nil))
			h.OutputDir = filepath.Join(t.TempDir(), "new", "nics")
			h.Network.Queues, h.Model = test.queues, test.model
			networks, err := h.Prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := filesIn(t, h.OutputDir); test.files != nil && !slices.Equal(got, test.files) {
				t.Errorf("there are %q, want %q", got, test.files)
			}
			if !strings.Contains(log.String(), test.says) {
				t.Errorf("the log does not say %q:\n%s", test.says, &log)
			}
			var nics struct{ Interfaces []prestart.Interface }
			if err := json.Unmarshal([]byte(readIn(t, h.OutputDir, prestart.NICsFile)), &nics); err != nil || len(nics.Interfaces) != 1 || nics.Interfaces[0].Tap != networks[0].Tap {
				t.Errorf("%s has %+v, %v; want %+v", prestart.NICsFile, nics, err, networks)
			}

			args := strings.Split(strings.TrimSuffix(readIn(t, h.OutputDir, prestart.QEMUFile), "\n"), "\n")
			qemu := pod.Command(t.Context(), "qemu-system-x86_64", append([]string{
				"-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", "tcg", "-m", "32", "-S", "-monitor", "stdio",
			}, args...)...)
			qemu.Stdin = strings.NewReader("info network\nquit\n")
			out, err := qemu.CombinedOutput()
			if want := "ifname=" + networks[0].Tap; err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), pod.MAC.String()) {
				t.Errorf("qemu with %q: %v\n%s", args, err, out)
			}
		})
	}
}

// A guest boots on what Run leaves, which is there before anyone is told that
// the network is ready; the next run leaves the same, and the guest notices
// nothing.
func TestHandedOverGuestBoots(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a VM")
	}
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	h.OutputDir = t.TempDir()
	session := run(t, h)
	args := readIn(t, h.OutputDir, prestart.QEMUFile)

	vm := vmtest.VM{GuestDir: podtest.Built(t, "guest"), Ping: []string{podtest.OutsideIP.String()}}
	machine := vmtest.Start(t, pod.NS, vm, strings.Split(strings.TrimSuffix(args, "\n"), "\n")...)
	report := machine.Report(t, 2*time.Minute)
	if report.Address != pod.IPv4 || report.MAC != pod.MAC.String() || report.MTU != pod.MTU || !report.Pinged[podtest.OutsideIP.String()] {
		t.Errorf("the guest reports %+v, the pod has %s %s", report, pod.IPv4, pod.MAC)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, h)
	if again := readIn(t, h.OutputDir, prestart.QEMUFile); again != args {
		t.Errorf("the second run leaves\n%s\nthe first left\n%s", again, args)
	}
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())
}

// Where nothing can be written, nothing is changed; where the domain does not
// start, nothing is left.
func TestNotHandedOver(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.OutputDir = filepath.Join(file, "nics")
	if _, err := h.Prepare(t.Context()); err == nil || !strings.Contains(err.Error(), "make output directory: mkdir "+file) {
		t.Errorf("Prepare: %v", err)
	}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "make output directory: mkdir "+file) {
		t.Errorf("Run: %v", err)
	}
	h.OutputDir = "/proc" // as root, there is little else that is not writable
	if _, err := h.Prepare(t.Context()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "write to output directory: open /proc/.writable-") {
		t.Errorf("Prepare: %v", err)
	}
	h.OutputDir = filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(h.StateDir, h.OutputDir); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "is the state directory") {
		t.Errorf("Run: %v", err)
	}
	h.OutputDir = t.TempDir()
	h.Domain = &prestart.Domain{XML: []byte("<domain><name>vm</name></domain>"), URI: "nobody:///knows"}
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody:///knows") {
		t.Errorf("Run: %v", err)
	}
	if files := filesIn(t, h.OutputDir); len(files) > 0 {
		t.Errorf("%q are left", files)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("the pod was changed:\n%s", d)
	}
}

// What plugs a NIC writes the files itself: nobody has changed ports, and none are told of.
func TestPlugChangesNoPorts(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces, h.OutputDir = []string{"eth0"}, t.TempDir()
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	session := run(t, h)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "changed ports") {
		t.Errorf("the log is\n%s", log.String())
	}
}

// What a process that was killed left of writing the files is gone after the next one, but
// for what another process is writing.
func TestOutputLeftovers(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.OutputDir = t.TempDir()
	others := []string{".firecracker.json", ".firecracker.json.7", "firecracker.json7", ".mine.json7", ".7"}
	leftovers := []string{".writable-12", ".qemu.args0"}
	for i, name := range allFiles {
		leftovers = append(leftovers, fmt.Sprintf(".%s%d", name, 123456789+i))
	}
	for _, name := range slices.Concat(others, leftovers) {
		path := filepath.Join(h.OutputDir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Chtimes(path, time.Time{}, time.Now().Add(-time.Second))); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.Open(h.OutputDir)
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_SH) // as who writes
	}
	if err != nil {
		t.Fatal(err)
	}
	prepared := func(want []string) {
		t.Helper()
		if _, err := h.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		want = slices.Sorted(slices.Values(slices.Concat(want, allFiles)))
		if got := filesIn(t, h.OutputDir); !slices.Equal(got, want) {
			t.Errorf("there are %q, want %q", got, want)
		}
	}
	prepared(slices.Concat(others, leftovers))
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	prepared(others)
}
