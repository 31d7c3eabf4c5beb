package vm

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

const uriOfLibvirtd = "qemu+tcp://127.0.0.1/system"

// A VM that a libvirtd in the pod runs is on the pod's network, and the program,
// which is outside of it and has no privileges left, ends it in peace. If it was killed, the
// next one takes the VM over.
func TestVMOfLibvirtd(t *testing.T) {
	m := startOfLibvirtd(t)
	if r := m.report(t); r.Address != m.pod.IPv4 {
		t.Errorf("the guest has %s, the pod %s", r.Address, m.pod.IPv4)
	}
	if err := m.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.launch(t)
	m.program.Run(t, "wait", "--for", "network", "--timeout", "60s")
	if !strings.Contains(m.log.String(), "domain taken over") {
		t.Error("the VM is not the one that was there")
	}
	m.shutDown(t)
	if strings.Contains(m.log.String(), "level=WARN") {
		t.Error("the program warns")
	}
	if left := m.virsh(t, "list", "--all", "--name"); strings.TrimSpace(left) != "" {
		t.Errorf("libvirt still has %s", left)
	}
}

// startOfLibvirtd starts a VM that a libvirtd in the pod runs.
func startOfLibvirtd(t *testing.T, args ...string) *machine {
	t.Helper()
	pod := podtest.NewPod(t, podtest.Calico)
	launchtest.StartLibvirtd(t, pod.NS)
	return start(t, pod, append(args, "--connect", uriOfLibvirtd)...)
}

func (m *machine) virsh(t *testing.T, args ...string) string {
	t.Helper()
	return m.pod.Run(t, "virsh", append([]string{"-c", uriOfLibvirtd}, args...)...)
}

// A VM that somebody has paused shuts down as one that runs: it writes what it has to.
func TestPausedVM(t *testing.T) {
	m := startOfLibvirtd(t)
	m.report(t)
	m.virsh(t, "suspend", "vm")
	m.shutDown(t)
	if log := m.log.String(); !strings.Contains(log, "resuming the domain") || !strings.Contains(log, "paused=user") || strings.Contains(log, "level=WARN") {
		t.Error("the log does not tell what was done")
	}
}

// A guest that is asked to shut down while it boots does not hear of it, and is asked again.
func TestBootingVM(t *testing.T) {
	m := start(t, podtest.NewPod(t, podtest.Calico), "--shutdown-timeout", bootTime.String())
	m.program.Run(t, "wait", "--for", "network", "--timeout", "1m")
	m.shutDown(t)
}

// A VM that libvirt is at work with is left to that, where that takes longer than its guest may
// to shut down; else it shuts down afterwards. A migration and a save are as a dump is, which
// takes as long as nobody reads it.
func TestVMAtWork(t *testing.T) {
	m := startOfLibvirtd(t, "--shutdown-timeout", "2s")
	m.report(t)
	file := filepath.Join(t.TempDir(), "memory")
	if err := unix.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	dump := m.pod.Command(t.Context(), "virsh", "-c", uriOfLibvirtd, "dump", "--memory-only", "vm", file)
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(file) // once libvirt has opened it, too
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if err := m.End(podtest.Patience); err == nil || !strings.Contains(m.log.String(), "it is left to libvirt, which is at a dump of it") {
		t.Errorf("it ended with %v", err)
	}
	if state := m.virsh(t, "domstate", "--reason", "vm"); !strings.Contains(state, "paused (dumping)") {
		t.Errorf("the domain is %s", state)
	}

	m.config.Args = append(m.config.Args, "--shutdown-timeout", podtest.Patience.String())
	m.launch(t)
	m.program.Run(t, "wait", "--for", "network", "--timeout", "60s")
	ended, stop := m.WhileRunning(t.Context())
	defer stop()
	if err := m.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.log.Until(t, "it ends", func(log string) bool { return strings.Count(log, "signal received") == 2 })
	if _, err := io.Copy(io.Discard, memory); err != nil {
		t.Error(err)
	}
	if err := dump.Wait(); err != nil {
		t.Errorf("virsh dump: %v", err)
	}
	<-ended.Done()
	if err := m.End(0); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !strings.Contains(m.serial(t), "VLN-SHUTDOWN") {
		t.Error("the guest was not asked to shut down")
	}
}

// A second signal does not wait for a libvirt that is frozen. The VM keeps its network.
func TestFrozenLibvirt(t *testing.T) {
	m := startOfLibvirtd(t, "--restore")
	m.program.Run(t, "wait", "--for", "network", "--timeout", "1m")
	before := podtest.TakeSnapshot(t, m.pod.NS)
	m.pod.Run(t, "nft", freeze)
	if err := m.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	m.log.Wait(t, "signal received")
	asked := time.Now()
	if err := m.End(podtest.Patience); err == nil {
		t.Error("it ended well")
	}
	for _, want := range []string{"destroy vm ends it", "the pod stays prepared"} {
		if !strings.Contains(m.log.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if took := time.Since(asked); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	m.pod.Run(t, "nft", "delete table ip hang")
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, m.pod.NS)); d != "" {
		t.Errorf("the pod has changed:\n%s", d)
	}
}
