// Package netboot boots firmware over the network with the built program's
// lease: iPXE and OVMF, in QEMU, from a TFTP server beyond the node.
package netboot_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// What Debian's packages ipxe, ipxe-qemu and ovmf hold.
const (
	ipxeROM = "/usr/lib/ipxe/qemu/efi-virtio.rom" // iPXE in the NIC, for BIOS and UEFI
	ipxeEFI = "/usr/lib/ipxe/snponly.efi"         // iPXE as a program for UEFI
	ovmf    = "/usr/share/ovmf/OVMF.fd"           // UEFI
)

// bootTime is how long firmware may take, emulated on a busy machine.
const bootTime = 90 * time.Second

// script is what iPXE runs. That the server is asked for the next file, by a
// name that holds what iPXE knows, proves that it ran.
const script = "#!ipxe\n" +
	"chain tftp://${next-server}/proof-${platform}-${net0/ip}-${net0/hostname}\n"

// bootFiles are the flags for all firmware under test: iPXE gets its script,
// UEFI gets iPXE, and all others something that would not boot.
var bootFiles = []string{
	"--tftp-server", podtest.OutsideIP.String(),
	"--boot-file", "for-nobody", "--boot-file", "efi-x64=snponly.efi", "--boot-file", "ipxe=boot.ipxe",
}

// TestIPXE: iPXE in the NIC's ROM runs its script.
func TestIPXE(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, podtest.Flannel)
	need(t, ipxeROM) // QEMU finds it by itself
	n.boot(t, "-device", "virtio-net-pci,netdev=net")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-pcbios-"+n.pod.IP.Addr().String()+"-vm-7")
	n.bound(t)
}

// TestOVMF: UEFI, which knows nothing of iPXE, loads and runs the program for
// its architecture. That is iPXE, which asks for a lease again and runs its
// script.
func TestOVMF(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, podtest.Flannel)
	n.boot(t, "-bios", need(t, ovmf), "-device", "virtio-net-pci,netdev=net,bootindex=0,romfile=")
	n.wait(t, "sent", "snponly.efi")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-efi-"+n.pod.IP.Addr().String()+"-vm-7")
	n.bound(t)
}

// network is a pod that is served, and a TFTP server beyond its node.
type network struct {
	pod    *podtest.Pod
	common []string // flags of the program
	tftp   *output
	served *output
	qemu   *output
}

func newNetwork(t *testing.T, shape podtest.Shape) *network {
	t.Helper()
	dir := t.TempDir()
	n := &network{pod: podtest.NewPod(t, shape)}
	n.common = []string{"--netns", n.pod.Pod.Path(), "--state-dir", filepath.Join(dir, "state")}

	root := filepath.Join(dir, "tftp")
	if err := errors.Join(
		os.Mkdir(root, 0o755),
		os.WriteFile(filepath.Join(root, "boot.ipxe"), []byte(script), 0o644),
		os.Symlink(need(t, ipxeEFI), filepath.Join(root, "snponly.efi")),
	); err != nil {
		t.Fatal(err)
	}
	n.tftp = start(t, n.pod.Outside.Command(t.Context(), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
		"--user=root", "--log-facility=-", "--port=0", "--enable-tftp", "--tftp-root="+root))
	n.tftp.wait(t, "TFTP root is")

	args := append([]string{"run", "--no-check", "--resolv-conf", "/dev/null", "--hostname", "vm-7"}, bootFiles...)
	n.served = start(t, n.pod.Node.Command(t.Context(), podtest.Built(t, "virt-launcher-net"), append(args, n.common...)...))
	n.program(t, "wait", "--for", "network", "--timeout", "30s")
	return n
}

// boot starts a machine without a disk on the pod's tap.
func (n *network) boot(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{
		"-machine", "q35,accel=tcg,graphics=off", "-serial", "stdio", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none", "-boot", "n", "-no-reboot",
		"-netdev", "tap,id=net,ifname=tap-eth0,script=no,downscript=no,vhost=off",
	}, args...)
	for i, arg := range args {
		if strings.HasPrefix(arg, "virtio-net-pci,") {
			args[i] += ",mac=" + n.pod.MAC.String()
		}
	}
	n.qemu = start(t, n.pod.Pod.Command(t.Context(), "qemu-system-x86_64", args...))
}

// wait waits until the TFTP server has logged a line with all the words.
func (n *network) wait(t *testing.T, words ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("the program printed:\n%s\nQEMU printed:\n%s", n.served.text(), n.qemu.text())
			t.Logf("status:\n%s", n.program(t, "status", "-o", "json"))
		}
	}()
	n.tftp.wait(t, words...)
}

// bound checks that the server saw iPXE take the lease.
func (n *network) bound(t *testing.T) {
	t.Helper()
	var status struct {
		Interfaces []struct {
			Lease struct {
				State  string
				Client struct{ VendorClass string }
			}
		}
	}
	text := n.program(t, "status", "-o", "json")
	if err := json.Unmarshal([]byte(text), &status); err != nil {
		t.Fatal(err)
	}
	if lease := status.Interfaces[0].Lease; lease.State != "bound" || !strings.HasPrefix(lease.Client.VendorClass, "PXEClient:Arch:0000") {
		t.Errorf("status is\n%s", text)
	}
}

func (n *network) program(t *testing.T, args ...string) string {
	t.Helper()
	return n.pod.Node.Run(t, podtest.Built(t, "virt-launcher-net"), append(args, n.common...)...)
}

// need is the path of a file that a Debian package has.
func need(t *testing.T, path string) string {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("ALLOW_SKIP") == "1" {
			t.Skipf("needs Debian's ipxe, ipxe-qemu and ovmf: %v", err)
		}
		t.Fatalf("needs Debian's ipxe, ipxe-qemu and ovmf (make deps): %v", err)
	}
	return path
}

// output is what a running program has printed.
type output struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed when there is more, or the end
	ended bool
}

// start starts a program, which is ended with the test.
func start(t *testing.T, cmd *exec.Cmd) *output {
	t.Helper()
	o := &output{more: make(chan struct{})}
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.read(read)
	}()
	go func() {
		_ = cmd.Wait() // it is ended by a signal
		_ = write.Close()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // an error: it has ended
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
	})
	return o
}

func (o *output) read(from io.Reader) {
	for lines := bufio.NewScanner(from); lines.Scan(); {
		o.add(lines.Text(), false)
	}
	o.add("", true)
}

func (o *output) add(line string, end bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines, o.ended = append(o.lines, line), end
	close(o.more)
	o.more = make(chan struct{})
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.lines, "\n")
}

// wait waits until a line with all the words is printed.
func (o *output) wait(t *testing.T, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	for {
		o.mu.Lock()
		lines, more, ended := o.lines, o.more, o.ended
		o.mu.Unlock()
		for _, line := range lines {
			if hasAll(line, words) {
				return
			}
		}
		if ended {
			t.Fatalf("ended without %q; printed:\n%s", words, o.text())
		}
		select {
		case <-more:
		case <-ctx.Done():
			t.Fatalf("no %q within %v; printed:\n%s", words, bootTime, o.text())
		}
	}
}

func hasAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}
