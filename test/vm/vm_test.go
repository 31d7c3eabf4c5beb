// Package vm tests the built program with a real virtual machine, which
// libvirt's embedded driver runs and QEMU emulates.
package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// bootTime is how long a guest may take to boot and to report.
const bootTime = 5 * time.Minute

const resolvConf = "search default.svc.cluster.local cluster.local\nnameserver 10.96.0.10\n"

// machine is a VM in a pod, and the program that started it.
type machine struct {
	*launchtest.Launcher
	config  launchtest.Config
	vm      vmtest.VM
	pod     *podtest.Pod
	program *launchtest.Program
	log     *podtest.Buffer
}

// start starts a VM in the pod.
func start(t *testing.T, pod *podtest.Pod, args ...string) *machine {
	t.Helper()
	return startVM(t, pod, vmtest.VM{}, args...)
}

// startVM is start with what the VM has besides.
func startVM(t *testing.T, pod *podtest.Pod, vm vmtest.VM, args ...string) *machine {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte(resolvConf), 0o600); err != nil {
		t.Fatal(err)
	}
	vm.Name, vm.GuestDir, vm.Serial, vm.Ping = "vm", podtest.Built(t, "guest"), filepath.Join(dir, "serial.log"), []string{podtest.OutsideIP.String()}
	m := &machine{
		vm:      vm,
		pod:     pod,
		program: launchtest.NewProgram(t, pod),
		log:     &podtest.Buffer{},
	}
	m.config = launchtest.Config{
		Binary: m.program.Binary, VM: m.vm, Dir: dir,
		CacheDir: filepath.Join(podtest.Built(t, "."), "libvirt-cache"), Log: m.log,
		Args: m.program.Args("run", append([]string{"--resolv-conf", file, "--hostname", "vm-7"}, args...)...)[1:],
	}
	m.launch(t)
	t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("virt-launcher-net printed:\n%s", m.log)
		}
	})
	return m
}

// launch starts the program, anew if it has ended.
func (m *machine) launch(t *testing.T) {
	t.Helper()
	var err error
	if m.Launcher, err = launchtest.Start(m.config); err != nil {
		t.Fatal(err)
	}
}

// report waits until the guest has booted and says what it has.
func (m *machine) report(t *testing.T) vmtest.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	ctx, stop := m.WhileRunning(ctx)
	defer stop()
	r, err := vmtest.WaitReport(ctx, m.vm.Serial)
	if err != nil {
		t.Fatal(err)
	}
	m.program.CheckDatapath(t)
	return r
}

func (m *machine) serial(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(m.vm.Serial)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shutDown ends the program, which has the guest shut down.
func (m *machine) shutDown(t *testing.T) {
	t.Helper()
	if err := m.End(podtest.Patience); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !strings.Contains(m.serial(t), "VLN-SHUTDOWN") {
		t.Error("the guest was not asked to shut down")
	}
}

// A VM on a pod that the real CNI plugins made gets what they gave the pod, is
// there at the pod's address, and leaves the pod as it was.
func TestVM(t *testing.T) {
	pod := podtest.NewFlannelPod(t)
	before := podtest.TakeSnapshot(t, pod.NS)
	m := start(t, pod)
	r := m.report(t)
	if r.Address != pod.IPv4 || r.MAC != pod.MAC.String() || r.MTU != pod.MTU || r.Hostname != "vm-7" || r.Server != pod.Gateway.String() {
		t.Errorf("the guest reports %+v, the pod has %s %s", r, pod.IPv4, pod.MAC)
	}
	if want := strings.Split(strings.TrimSpace(resolvConf), "\n"); !slices.Equal(r.Resolv, want) {
		t.Errorf("the guest's resolv.conf is %q, want %q", r.Resolv, want)
	}
	if !r.Pinged[podtest.OutsideIP.String()] {
		t.Error("the guest reaches nothing beyond its gateway")
	}
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())
	if out := pod.Node.Run(t, "curl", "-sS", "--max-time", "5", "http://"+pod.IPv4.Addr().String()); out != "hello from the guest\n" {
		t.Errorf("the guest's page is %q", out)
	}

	var status struct {
		Server     struct{ Domain string }
		Interfaces []struct {
			ChecksumFilter bool // which lets the guest's virtio NIC do its work
			Lease          struct {
				State  string
				Client struct{ VendorClass string }
			}
		}
	}
	m.program.StatusAll(t, &status)
	if l := status.Interfaces[0].Lease; l.State != "bound" || !strings.HasPrefix(l.Client.VendorClass, "udhcp") || status.Server.Domain != "vm" {
		t.Errorf("status is %+v", status)
	}
	if !status.Interfaces[0].ChecksumFilter {
		t.Errorf("the tap has no checksum filter: status is %+v", status)
	}
	m.program.Run(t, "wait", "--for", "lease", "--timeout", "20s")

	m.shutDown(t)
	m.program.Run(t, "restore")
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// The VM keeps its network when the program is killed; the next run serves it
// again, and refuses nothing that it did before.
func TestKilledProgram(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Calico)
	m := start(t, pod, "--queues", "2")
	m.report(t)
	address := pod.IPv4.Addr().String()
	if err := m.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pod.Node.Run(t, "ip", "neigh", "flush", "all")
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", address)

	m.program.Serve(t, "--queues", "2")
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", address)
}

// A container that is killed takes the program and the VM along. The next one
// starts the VM, though libvirt was not told that it ended. If only the program was killed,
// it takes the VM over.
func TestKilledContainer(t *testing.T) {
	m := start(t, podtest.NewPod(t, podtest.Calico), "--no-check") // which finds the tap of a VM in use
	m.program.Run(t, "wait", "--for", "network", "--timeout", "1m")
	for range 5 {
		if err := errors.Join(m.Signal(syscall.SIGKILL), m.Kill()); err != nil {
			t.Fatal(err)
		}
		m.launch(t)
		m.program.Run(t, "wait", "--for", "network", "--timeout", "60s")
	}
	if strings.Contains(m.log.String(), "is running") {
		t.Error("what is dead is taken for running")
	}
	if err := m.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	m.launch(t)
	m.program.Run(t, "wait", "--for", "network", "--timeout", "60s")
	if !strings.Contains(m.log.String(), "domain taken over") {
		t.Error("the VM is not the one that was there")
	}
	m.report(t)
	m.shutDown(t)
}

// A guest that does not obey is destroyed in time, and the program ends well.
func TestStubbornGuest(t *testing.T) {
	pod := podtest.NewPod(t, podtest.CalicoDual)
	m := start(t, pod, "--shutdown-timeout", "1s")
	m.program.Run(t, "wait", "--for", "network", "--timeout", "1m") // the firmware obeys nobody
	if err := m.End(podtest.Patience); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !strings.Contains(m.log.String(), "destroying") {
		t.Error("the guest was not destroyed")
	}
}
