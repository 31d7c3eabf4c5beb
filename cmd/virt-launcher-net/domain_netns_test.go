package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

const testDomainXML = `<domain type='test'><name>vm</name><memory unit='MiB'>16</memory><os><type>hvm</type></os></domain>`

// startDomain runs a domain in a pod from outside of the pod's namespace, and
// returns once the program has given up its privileges.
func startDomain(t *testing.T, pod *podtest.Pod, uri string) (cmd *podtest.Cmd, log *podtest.Buffer) {
	t.Helper()
	args := podArgs(t, pod, "run", "--no-check", "--hostname", "vm", "--dns", "192.0.2.53", "--domain", "-", "--connect", uri)
	cmd = pod.Node.Command(t.Context(), os.Args[0], args...)
	cmd.Stdin = strings.NewReader(testDomainXML)
	log = &podtest.Buffer{}
	cmd.Stderr = log
	if err := startMain(cmd); err != nil {
		t.Fatalf("%v: %s", errors.Join(err, cmd.Wait()), log)
	}
	return cmd, log
}

// checkShutDown checks that the program ends well and the domain was not
// destroyed.
func checkShutDown(t *testing.T, cmd *podtest.Cmd, log *podtest.Buffer) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if text := log.String(); !strings.Contains(text, "reason=shutdown") || strings.Contains(text, "level=WARN") {
		t.Errorf("printed %s", text)
	}
}

// A driver which the library has in the process, but not QEMU's. The library is loaded for
// a domain, and not before.
func TestDomainOfTestDriver(t *testing.T) {
	t.Parallel()
	if maps, err := os.ReadFile("/proc/self/maps"); err != nil || strings.Contains(string(maps), "/libvirt.so") {
		t.Errorf("libvirt is loaded by a program that starts no domain; %v", err)
	}
	pod := podtest.NewPod(t, podtest.Calico)
	cmd, log := startDomain(t, pod, "test:///default")
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid)); err != nil || !strings.Contains(string(maps), "/libvirt.so") {
		t.Errorf("libvirt is not loaded by a program that starts a domain; %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	checkShutDown(t, cmd, log)
}

// A libvirtd that can only be dialled from within the pod: its domain is ended
// from outside, without privileges.
func TestDomainOfLibvirtd(t *testing.T) {
	t.Parallel()
	const uri = "test+tcp://127.0.0.1/default"
	for name, end := range map[string]func(*podtest.Pod, *os.Process) error{
		"signal": func(_ *podtest.Pod, program *os.Process) error { return program.Signal(syscall.SIGTERM) },
		"guest": func(pod *podtest.Pod, _ *os.Process) error { // as if it did so by itself
			return pod.Command(t.Context(), "virsh", "-c", uri, "shutdown", "vm").Run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podtest.NewPod(t, podtest.Calico)
			launchtest.StartLibvirtd(t, pod.NS)
			cmd, log := startDomain(t, pod, uri)
			if err := end(pod, cmd.Process); err != nil {
				t.Error(err)
			}
			checkShutDown(t, cmd, log)
		})
	}
}
