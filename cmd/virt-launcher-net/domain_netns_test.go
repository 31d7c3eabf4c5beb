package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// A domain that has the names of the pod's taps, and none of them open, is no VM of this pod,
// or has lost its network.
func TestDomainBesideTaps(t *testing.T) {
	t.Parallel()
	const uri = "test+tcp://127.0.0.1/default"
	pod := podtest.NewPod(t, podtest.Calico)
	launchtest.StartLibvirtd(t, pod.NS)
	other := filepath.Join(t.TempDir(), "vm.xml")
	xml := strings.Replace(testDomainXML, "</domain>", "<devices><interface type='ethernet'><target dev='tap-eth0' managed='no'/></interface></devices></domain>", 1)
	if err := os.WriteFile(other, []byte(xml), 0o600); err != nil {
		t.Fatal(err)
	}
	virsh := pod.Command(t.Context(), "virsh", "-c", uri, "create "+other+"; event --all --loop") // the driver forgets its domains with the last connection
	if err := startMain(virsh); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := pod.Node.Command(ctx, os.Args[0], podArgs(t, pod, "run", "--hostname", "vm", "--domain", other, "--connect", uri)...)
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	out, err := cmd.CombinedOutput()
	if text := string(out); err == nil || !strings.Contains(text, "none of the pod's taps open") || !strings.Contains(text, "destroy vm") {
		t.Errorf("run: %v, and prints %s", err, text)
	}
	if left := pod.Run(t, "virsh", "-c", uri, "list", "--name"); !strings.Contains(left, "vm\n") {
		t.Errorf("the domain was ended: there are %q", left)
	}
	if err := virsh.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = virsh.Wait()
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
