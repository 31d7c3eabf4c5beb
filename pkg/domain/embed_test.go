//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"libvirt.org/go/libvirt"
)

// qemuConf has the embedded driver do without what a container lacks.
const qemuConf = `security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
`

// firmwareXML is a machine that stays in its firmware, deaf to ACPI.
const firmwareXML = `<domain type='qemu'>
  <name>firmware</name>
  <memory unit='MiB'>32</memory>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>`

// inPod runs f on a thread in a network namespace of its own, which has the taps,
// and returns it. The thread ends with f.
func inPod(t *testing.T, taps []string, f func()) *os.File {
	t.Helper()
	var netns *os.File
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		if netns, err = openNetns(); err != nil {
			return
		}
		for _, name := range taps {
			tap := &netlink.Tuntap{
				LinkAttrs: netlink.LinkAttrs{Name: name},
				Mode:      netlink.TUNTAP_MODE_TAP,
				Flags:     netlink.TUNTAP_VNET_HDR | netlink.TUNTAP_NO_PI,
			}
			if err = netlink.LinkAdd(tap); err != nil {
				return
			}
			if err = netlink.LinkSetUp(tap); err != nil {
				return
			}
		}
		f()
	}()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Close() })
	return netns
}

// The driver can't be opened with another root by the same process, so all of
// it is one test.
func TestEmbeddedQEMU(t *testing.T) {
	if !inChild(t) {
		return
	}
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "etc", "qemu.conf"), qemuConf)
	uri := "qemu:///embed?root=" + root
	xml, err := Attach([]byte(firmwareXML), eth0)
	if err != nil {
		t.Fatal(err)
	}
	start := func() (vm *VM, err error) { return Start(t.Context(), nil, uri, xml) }

	checkDefinable(t, uri)

	var vm *VM
	var startErr error
	inPod(t, nil, func() { vm, startErr = start() })
	if startErr == nil || !strings.Contains(startErr.Error(), "specified dev doesn't exist") || len(qemus(t, root)) > 0 {
		t.Fatalf("without a tap: %v, QEMUs %v", startErr, qemus(t, root))
	}

	netns := inPod(t, []string{"tap-eth0"}, func() { vm, startErr = start() })
	if startErr != nil {
		t.Fatal(startErr)
	}
	checkRunning(t, vm, root, netns)
	shutdown, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := vm.Shutdown(shutdown); err != nil {
		t.Error(err)
	}
	checkStopped(t, vm, root, netns, ReasonDestroyed)

	t.Setenv("LIBVIRT_DEFAULT_URI", uri)
	uri = "" // does not tell that the driver is embedded
	inThread(t, netns, func() { vm, startErr = start() })
	if startErr != nil {
		t.Fatalf("second time: %v", startErr)
	}
	checkRunning(t, vm, root, netns)
	if err := syscall.Kill(qemus(t, root)[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	checkStopped(t, vm, root, netns, ReasonFailed)
}

// checkDefinable checks that the QEMU driver takes what is left of interfaces
// which were of another type.
func checkDefinable(t *testing.T, uri string) {
	t.Helper()
	if err := runEvents(); err != nil {
		t.Fatal(err)
	}
	c, err := libvirt.NewConnect(uri)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, g := range goldens {
		if g.name == "s390x" || g.name == "weird" { // what is no NIC of these asks for more
			continue
		}
		xml := string(readFile(t, g.name+".golden.xml"))
		xml = strings.NewReplacer("<domain type='kvm'", "<domain type='qemu'", `<domain type="kvm"`, `<domain type="qemu"`).Replace(xml)
		d, err := c.DomainDefineXML(xml)
		if err != nil {
			t.Errorf("%s: %v", g.name, err)
			continue
		}
		d.Undefine()
		d.Free()
	}
}

// inThread runs f on a thread in netns.
func inThread(t *testing.T, netns *os.File, f func()) {
	t.Helper()
	if err := call(t.Context(), netns, func() error { f(); return nil }, func() {}); err != nil {
		t.Fatal(err)
	}
}

// checkRunning checks that QEMU was born in netns and holds the tap.
func checkRunning(t *testing.T, vm *VM, root string, netns *os.File) {
	t.Helper()
	if !vm.Embedded() {
		t.Error("the driver is in this process, but is not known to be")
	}
	pids := qemus(t, root)
	if len(pids) != 1 {
		t.Fatalf("%d QEMUs, want 1", len(pids))
	}
	want, err := netns.Stat()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.Stat("/proc/" + strconv.Itoa(pids[0]) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(want, got) {
		t.Error("QEMU is in another network namespace than the caller of Start")
	}
	xml, err := vm.dom.GetXMLDesc(0)
	if err != nil {
		t.Fatal(err)
	}
	live, err := parse([]byte(xml))
	if err != nil {
		t.Fatal(err)
	}
	nics := find(live.Root(), "devices", "interface")
	if len(nics) != 1 || value(nics[0], "name", "alias") != "ua-eth0" || value(nics[0], "dev", "target") != "tap-eth0" || value(nics[0], "managed", "target") != "no" {
		t.Errorf("the NIC libvirt runs is not the one attached:\n%s", xml)
	}
	if !hasCarrier(t, netns, "tap-eth0") {
		t.Error("nobody has opened the tap")
	}
}

// hasCarrier reports whether the tap in netns is open.
func hasCarrier(t *testing.T, netns *os.File, tap string) bool {
	t.Helper()
	var link netlink.Link
	err := call(t.Context(), netns, func() (err error) { link, err = netlink.LinkByName(tap); return err }, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// checkStopped checks that no QEMU is left but the tap is, and closes the VM.
func checkStopped(t *testing.T, vm *VM, root string, netns *os.File, reason StopReason) {
	t.Helper()
	var stop *StopError
	if err := vm.Wait(bounded(t)); !errors.As(err, &stop) || stop.Reason != reason {
		t.Errorf("Wait: %v, want %s", err, reason)
	}
	if pids := qemus(t, root); len(pids) > 0 {
		t.Errorf("QEMU is left: %v", pids)
	}
	if hasCarrier(t, netns, "tap-eth0") { // and is still there
		t.Error("the tap is still open")
	}
	if _, err := vm.conn.LookupDomainByName(vm.Name()); !errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		t.Errorf("libvirt still knows the domain: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
}

// qemus returns the processes of the driver with this root, zombies apart.
func qemus(t *testing.T, root string) []int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, f := range lines {
		b, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(b), "/usr/bin/qemu-system") || !strings.Contains(string(b), root) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
