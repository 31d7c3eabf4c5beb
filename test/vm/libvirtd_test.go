package vm

import (
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

// A VM that a libvirtd in the pod runs is on the pod's network, and the program,
// which is outside of it and has no privileges left, ends it in peace. If it was killed, the
// next one takes the VM over.
func TestVMOfLibvirtd(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Calico)
	launchtest.StartLibvirtd(t, pod.NS)
	const uri = "qemu+tcp://127.0.0.1/system"
	m := start(t, pod, "--connect", uri)
	if r := m.report(t); r.Address != pod.IPv4 {
		t.Errorf("the guest has %s, the pod %s", r.Address, pod.IPv4)
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
	if left := pod.Run(t, "virsh", "-c", uri, "list", "--all", "--name"); strings.TrimSpace(left) != "" {
		t.Errorf("libvirt still has %s", left)
	}
}
