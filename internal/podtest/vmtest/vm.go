// Package vmtest describes virtual machines to QEMU and to libvirt, and reads what
// the guest of test/guest reports of itself.
package vmtest

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// VM is a virtual machine that runs the guest of test/guest.
type VM struct {
	Name     string
	GuestDir string   // what test/guest/build.sh built: vmlinux and initramfs
	Serial   string   // file that the guest reports to
	IPv6     bool     // the guest asks DHCPv6 for an address, too
	Ping     []string // addresses the guest shall ping
	Get      []string // URLs the guest shall get
	Ports    int      // free PCIe root ports, for NICs to be plugged in; of DomainXML
	Words    []string // further ones for the kernel's command line
}

// Cmdline is the kernel's command line.
func (vm VM) Cmdline() string {
	// Emulated on a busy machine, the timers can fail the kernel's checks of them; what
	// its cryptography says of itself takes a tenth of the boot, and what it does against
	// faults of real processors some more.
	words := []string{"console=ttyS0", "quiet", "panic=-1", "reboot=t", "no_timer_check", "cryptomgr.notests", "mitigations=off"}
	if vm.IPv6 {
		words = append(words, "vln.ipv6")
	}
	for _, address := range vm.Ping {
		words = append(words, "vln.ping="+address)
	}
	for _, url := range vm.Get {
		words = append(words, "vln.get="+url)
	}
	return strings.Join(append(words, vm.Words...), " ")
}

// Kernel and Initrd are the files to boot.
func (vm VM) Kernel() string { return filepath.Join(vm.GuestDir, "vmlinux") }

// Initrd is described at Kernel.
func (vm VM) Initrd() string { return filepath.Join(vm.GuestDir, "initramfs") }

const domainXML = `<domain type='qemu'>
  <name>%s</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>%s</kernel>
    <initrd>%s</initrd>
    <cmdline>%s</cmdline>
  </os>
  <features>
    <acpi/>
  </features>
  <cpu mode='custom' match='exact' check='none'><model fallback='allow'>Nehalem</model></cpu>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>destroy</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
%s    <serial type='file'>
      <source path='%s'/>
      <target port='0'/>
    </serial>
    <memballoon model='none'/>
  </devices>
</domain>
`

// DomainXML describes the machine to libvirt, without a NIC. It is emulated in
// software (TCG): slower than KVM, the same everywhere.
func (vm VM) DomainXML() []byte {
	return fmt.Appendf(nil, domainXML, escape(vm.Name), escape(vm.Kernel()), escape(vm.Initrd()),
		escape(vm.Cmdline()), vm.ports(), escape(vm.Serial))
}

// ports are the free ports, and those that libvirt uses itself.
func (vm VM) ports() string {
	if vm.Ports == 0 {
		return ""
	}
	return "    <controller type='pci' model='pcie-root'/>\n" + strings.Repeat("    <controller type='pci' model='pcie-root-port'/>\n", vm.Ports)
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}

// Report is what the guest says of itself on its serial port.
type Report struct {
	Address   netip.Prefix
	Routes    []string     // as ip(8) prints them
	Address6  netip.Prefix // by DHCPv6; zero: none
	Routes6   []string     // from router advertisements, and the kernel's own
	Resolv    []string     // lines of /etc/resolv.conf
	MTU       int
	MAC       string
	Hostname  string
	Server    string        // server identifier
	LeaseTime string        // seconds
	Uptime    time.Duration // at the report, since the kernel started
	Pinged    map[string]bool
	Got       map[string]string // first line of the page; none if it was not got
}

// WaitReport waits until the guest has reported to its serial file and done
// what it was asked, at most until ctx ends. The error has what it printed.
func WaitReport(ctx context.Context, serial string) (Report, error) {
	text, err := WaitSerial(ctx, serial, func(text string) bool { return strings.Contains(text, "\nVLN-READY") })
	if err != nil {
		return Report{}, fmt.Errorf("wait for guest's report: %w; it printed:\n%s", err, text)
	}
	report, err := parseReport(text)
	if err != nil {
		return Report{}, fmt.Errorf("read guest's report: %w", err)
	}
	return report, nil
}

// WaitSerial waits until enough says yes to what the guest has printed to its serial
// file, at most until ctx ends, and returns that.
func WaitSerial(ctx context.Context, path string, enough func(text string) bool) (string, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return "", os.NewSyscallError("inotify_init1", err)
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	defer changes.Close()
	stop := context.AfterFunc(ctx, func() { _ = changes.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// The file may not be there yet.
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE|unix.IN_MODIFY); err != nil {
		return "", fmt.Errorf("watch %s: %w", filepath.Dir(path), err)
	}
	buf := make([]byte, 4096)
	for {
		raw, err := os.ReadFile(path)
		text := strings.ReplaceAll(string(raw), "\r\n", "\n")
		if err != nil && !errors.Is(err, os.ErrNotExist) || err == nil && enough(text) {
			return text, err
		}
		if _, err := changes.Read(buf); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return text, err
		}
	}
}

func parseReport(text string) (Report, error) {
	report := Report{Pinged: map[string]bool{}, Got: map[string]string{}}
	_, text, found := strings.Cut(text, "VLN-REPORT-BEGIN\n")
	if !found {
		return report, errors.New("no VLN-REPORT-BEGIN")
	}
	for line := range strings.Lines(text) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if err := report.add(word, rest); err != nil {
			return report, fmt.Errorf("line %q: %w", line, err)
		}
	}
	return report, nil
}

func (r *Report) add(word, rest string) (err error) {
	switch word {
	case "address":
		r.Address, err = netip.ParsePrefix(rest)
	case "route":
		r.Routes = append(r.Routes, rest)
	case "address6":
		r.Address6, err = netip.ParsePrefix(rest)
	case "route6":
		r.Routes6 = append(r.Routes6, rest)
	case "resolv":
		r.Resolv = append(r.Resolv, rest)
	case "mtu":
		r.MTU, err = strconv.Atoi(rest)
	case "mac":
		r.MAC = rest
	case "hostname":
		r.Hostname = rest
	case "server":
		r.Server = rest
	case "lease":
		r.LeaseTime = rest
	case "uptime":
		r.Uptime, err = time.ParseDuration(rest + "s")
	case "VLN-PING":
		address, result, _ := strings.Cut(rest, " ")
		r.Pinged[address] = result == "ok"
	case "VLN-GET":
		if url, page, ok := strings.Cut(rest, " ok "); ok {
			r.Got[url] = page
		}
	}
	return err
}
