package vm

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// A sidecar that is started beside a QEMU, or after one that was killed, works
// whatever QEMU made of the tap: it sets a longer header for a virtio NIC once
// the guest's driver asks for it, and libvirt gives it a tap without a header for
// any other model.
func TestKilledQEMU(t *testing.T) {
	for _, c := range []struct {
		name, netdev, model string
		boots               bool // and has its address
	}{
		{"virtio-net", "", "virtio-net-pci", true},
		{"e1000", ",vnet_hdr=off", "e1000", false}, // the guest of test/guest has no driver
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := podtest.NewPod(t, podtest.Calico)
			s := &sidecar{launchtest.NewProgram(t, pod), pod}
			s.Serve(t)
			vm := s.qemu(t, c.netdev, c.model)
			if c.boots {
				expect(t, vm, pod)
			} else {
				s.untilTap(t, "LOWER_UP")
			}
			s.kill()
			s.Serve(t) // beside the VM
			if out, err := s.Output(t, "check"); err == nil || !strings.Contains(err.Error(), "the tap is in use") {
				t.Errorf("check beside the VM: %v\n%s", err, out)
			}
			vm.Kill()
			s.untilTap(t, "NO-CARRIER")
			if out, err := s.Output(t, "check"); err != nil {
				t.Errorf("check after the VM: %v\n%s", err, out)
			}
			s.kill()
			s.Serve(t)
			if out, err := s.Output(t, "check"); err != nil {
				t.Errorf("check after another start: %v\n%s", err, out)
			}
			expect(t, s.qemu(t, "", "virtio-net-pci"), pod)
		})
	}
}

// sidecar is the program beside a QEMU that somebody else starts.
type sidecar struct {
	*launchtest.Program
	pod *podtest.Pod
}

// kill kills the program.
func (s *sidecar) kill() { _ = s.Stop(syscall.SIGKILL) }

// untilTap waits until the tap's flags are as ip(8) prints them.
func (s *sidecar) untilTap(t *testing.T, flag string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	for !strings.Contains(s.pod.Run(t, "ip", "link", "show", "tap-eth0"), flag) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("the tap has no %s", flag)
		}
	}
}

// qemu starts a QEMU in the pod that opens the tap itself.
func (s *sidecar) qemu(t *testing.T, netdev, model string) *vmtest.Machine {
	t.Helper()
	return vmtest.Start(t, s.pod.NS, vmtest.VM{GuestDir: podtest.Built(t, "guest")},
		"-netdev", "tap,id=net0,ifname=tap-eth0,script=no,downscript=no,vhost=off"+netdev,
		"-device", fmt.Sprintf("%s,netdev=net0,romfile=,mac=%v", model, s.pod.MAC))
}

// expect waits until the guest has booted, with the pod's address.
func expect(t *testing.T, vm *vmtest.Machine, pod *podtest.Pod) {
	t.Helper()
	if r := vm.Report(t, bootTime); r.Address != pod.IPv4 {
		t.Fatalf("the guest reports %+v, the pod has %s", r, pod.IPv4)
	}
}
