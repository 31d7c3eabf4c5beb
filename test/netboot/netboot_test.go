// Package netboot boots firmware over the network with the built program's
// lease: iPXE and OVMF, in QEMU, from a TFTP server beyond the node.
package netboot_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// What Debian's packages ipxe, ipxe-qemu and ovmf hold.
const (
	ipxeROM = "/usr/lib/ipxe/qemu/efi-virtio.rom" // iPXE in the NIC, for BIOS and UEFI
	ipxeEFI = "/usr/lib/ipxe/snponly.efi"         // iPXE as a program for UEFI
	ovmf    = "/usr/share/ovmf/OVMF.fd"           // UEFI
)

// bootTime is how long firmware may take, emulated on a busy machine.
const bootTime = 3 * time.Minute

// Scripts that iPXE runs. That the server is asked for the next file, by a name
// that holds what iPXE knows, proves that it ran.
const (
	script  = "#!ipxe\nchain tftp://${next-server}/proof-${platform}-${net0/ip}-${net0/hostname}\n"
	script6 = "#!ipxe\nchain tftp://[fd00:192::10]/proof-${platform}-${net0/ip6}\n"
)

// bootFiles are the flags for all firmware under test: iPXE gets its script,
// UEFI gets iPXE, and all others something that would not boot.
var bootFiles = []string{"--boot-file", "for-nobody", "--boot-file", "efi-x64=snponly.efi", "--boot-file", "ipxe=boot.ipxe"}

// TestIPXE: iPXE in the NIC's ROM runs its script.
func TestIPXE(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, podtest.Flannel)
	podtest.Packaged(t, ipxeROM) // QEMU finds it by itself
	n.boot(t, "-device", "virtio-net-pci,netdev=net")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-pcbios-"+n.pod.IPv4.Addr().String()+"-vm-7")
	n.bound(t, "lease")
}

// TestOVMF: UEFI, which knows nothing of iPXE, loads and runs the program for
// its architecture. That is iPXE, which asks for a lease again and runs its
// script.
func TestOVMF(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, podtest.Flannel)
	n.boot(t, "-bios", podtest.Packaged(t, ovmf), "-device", "virtio-net-pci,netdev=net,bootindex=0,romfile=")
	n.wait(t, "sent", "snponly.efi")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-efi-"+n.pod.IPv4.Addr().String()+"-vm-7")
	n.bound(t, "lease")
}

// TestIPXE6 is TestIPXE in a pod without IPv4.
func TestIPXE6(t *testing.T) {
	t.Parallel()
	n := newNetwork6(t)
	n.boot(t, "-device", "virtio-net-pci,netdev=net")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-pcbios-"+n.pod.IPv6.Addr().String())
	n.bound(t, "lease6")
}

// TestOVMF6 is TestOVMF in a pod without IPv4.
func TestOVMF6(t *testing.T) {
	t.Parallel()
	n := newNetwork6(t)
	n.boot(t, "-bios", podtest.Packaged(t, ovmf), "-device", "virtio-net-pci,netdev=net,bootindex=0,romfile=",
		// Else it tries IPv4 for two minutes first.
		"-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n")
	n.wait(t, "sent", "snponly.efi")
	n.wait(t, "sent", "boot.ipxe")
	n.wait(t, "proof-efi-"+n.pod.IPv6.Addr().String())
	n.bound(t, "lease6")
}

// network is a pod that is served, and a TFTP server beyond its node.
type network struct {
	pod     *podtest.Pod
	program *launchtest.Program
	tftp    *podtest.Console
	qemu    *podtest.Console
}

func newNetwork(t *testing.T, shape podtest.Shape) *network {
	t.Helper()
	n := &network{pod: podtest.NewPod(t, shape)}
	n.serve(t, podtest.OutsideIP, script)
	return n
}

func newNetwork6(t *testing.T) *network {
	t.Helper()
	// Debian's iPXE finds no router where the address is in no prefix on the link
	// (github.com/ipxe/ipxe/pull/1245), and none to a global address from a local
	// one.
	n := &network{pod: podtest.NewPod(t, podtest.BridgeDual)}
	n.pod.IP(t, "addr del "+n.pod.IPv4.String()+" dev eth0")
	n.pod.Node.IP(t, "addr add fd00:192::1/64 dev uplink0")
	n.pod.Outside.IP(t, "addr add fd00:192::10/64 dev eth0")
	n.serve(t, netip.MustParseAddr("fd00:192::10"), script6)
	return n
}

// serve starts a TFTP server and the program.
func (n *network) serve(t *testing.T, tftp netip.Addr, script string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tftp")
	if err := errors.Join(
		os.Mkdir(root, 0o755),
		os.WriteFile(filepath.Join(root, "boot.ipxe"), []byte(script), 0o644),
		os.Symlink(podtest.Packaged(t, ipxeEFI), filepath.Join(root, "snponly.efi")),
	); err != nil {
		t.Fatal(err)
	}
	n.tftp = podtest.StartConsole(t, n.pod.Outside.Command(t.Context(), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=",
		"--user=root", "--log-facility=-", "--port=0", "--enable-tftp", "--tftp-root="+root))
	n.tftp.WaitLine(t, bootTime, "TFTP root is")

	n.program = launchtest.NewProgram(t, n.pod)
	n.program.Serve(t, append([]string{"--no-check", "--resolv-conf", "/dev/null", "--hostname", "vm-7", "--tftp-server", tftp.String()}, bootFiles...)...)
}

// boot starts a machine without a disk on the pod's tap.
func (n *network) boot(t *testing.T, args ...string) {
	t.Helper()
	args = append([]string{
		"-m", "256", "-serial", "stdio", "-boot", "n",
		// Firmware spins while it waits: by instructions (of 32 ns), not by the clock, it waits less.
		"-icount", "shift=5,sleep=off",
		"-netdev", "tap,id=net,ifname=tap-eth0,script=no,downscript=no,vhost=off",
	}, args...)
	for i, arg := range args {
		if strings.HasPrefix(arg, "virtio-net-pci,") {
			args[i] += ",mac=" + n.pod.MAC.String()
		}
	}
	n.qemu = podtest.StartConsole(t, vmtest.QEMU(t.Context(), n.pod.NS, args...))
}

// wait waits until the TFTP server has logged a line with all the words.
func (n *network) wait(t *testing.T, words ...string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("QEMU printed:\n%s\nstatus:\n%s", n.qemu.Text(), n.program.Run(t, "status", "-o", "json"))
		}
	}()
	n.tftp.WaitLine(t, bootTime, words...)
}

// bound checks that the server of "lease" or "lease6" saw iPXE take the lease.
func (n *network) bound(t *testing.T, server string) {
	t.Helper()
	var status map[string]json.RawMessage
	n.program.Status(t, &status)
	var lease struct {
		State  string
		Client struct{ VendorClass string }
	}
	if err := json.Unmarshal(status[server], &lease); err != nil {
		t.Fatal(err)
	}
	if lease.State != "bound" || !strings.HasPrefix(lease.Client.VendorClass, "PXEClient:Arch:0000") {
		t.Errorf("%s is %+v", server, lease)
	}
}
