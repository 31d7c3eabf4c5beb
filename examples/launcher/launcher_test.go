package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// The launcher is built and runs a VM in a pod, from its start to its end.
func TestLauncher(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a VM")
	}
	dir := t.TempDir()
	launcher := filepath.Join(dir, "launcher")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-tags", "libvirt_dlopen", "-o", launcher, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	pod := podtest.NewPod(t, podtest.Calico)
	// It runs in the pod; podtest says "run" first, which is another program's.
	inPod := filepath.Join(dir, "in-pod")
	if err := os.WriteFile(inPod, fmt.Appendf(nil, "#!/bin/sh\nshift\nexec nsenter --net=%s %s \"$@\"\n", pod.Path(), launcher), 0o755); err != nil {
		t.Fatal(err)
	}
	vm := vmtest.VM{
		Name: "vm", GuestDir: podtest.Built(t, "guest"), Serial: filepath.Join(dir, "serial.log"),
		Ping: []string{podtest.OutsideIP.String()},
	}
	log := &podtest.Buffer{}
	l, err := launchtest.Start(launchtest.Config{
		Binary: inPod, VM: vm, Dir: dir, CacheDir: filepath.Join(podtest.Built(t, "."), "libvirt-cache"), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Kill(); err != nil {
			t.Error(err)
		}
		t.Logf("launcher printed:\n%s", log)
	})

	boot, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	boot, stop := l.WhileRunning(boot)
	defer stop()
	report, err := vmtest.WaitReport(boot, vm.Serial)
	if err != nil {
		t.Fatal(err)
	}
	if report.Address != pod.IPv4 || report.MAC != pod.MAC.String() || !report.Pinged[podtest.OutsideIP.String()] {
		t.Errorf("the guest reports %+v, the pod has %s %s", report, pod.IPv4, pod.MAC)
	}
	if err := l.End(podtest.Patience); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	serial, err := os.ReadFile(vm.Serial)
	if err != nil || !strings.Contains(string(serial), "VLN-SHUTDOWN") {
		t.Errorf("the guest was not asked to shut down: %v", err)
	}
	if want := `msg="the guest has its lease" interface=eth0 address=` + pod.IPv4.String(); !strings.Contains(log.String(), want) {
		t.Errorf("the launcher does not say %q", want)
	}
}
