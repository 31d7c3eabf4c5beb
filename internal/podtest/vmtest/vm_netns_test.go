package vmtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

var guestMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x07}

// The guest boots behind a tap, gets its lease from dnsmasq, reaches and is
// reached, and powers off when the button is pressed.
func TestVM(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("boots a VM")
	}
	pod := podtest.NewPod(t, podtest.Calico)
	podtest.Rewire(t, pod, "")
	podtest.ServeDHCP(t, pod, guestMAC)
	outside := pod.Outside.Listen(t, podtest.OutsideIP.String()+":0")
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "hello from outside", r.RemoteAddr) }),
		ReadHeaderTimeout: time.Second,
	}
	go server.Serve(outside)
	t.Cleanup(func() { server.Close() })
	url := "http://" + outside.Addr().String() + "/"

	dir := t.TempDir()
	vm := VM{
		Name: "vm", GuestDir: podtest.Built(t, "guest"), Serial: filepath.Join(dir, "serial.log"),
		Ping: []string{podtest.OutsideIP.String(), "192.0.2.99"}, Get: []string{url},
	}
	monitor := filepath.Join(dir, "monitor")
	start := time.Now()
	qemu := pod.Command(t.Context(), "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
		"-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256",
		"-kernel", vm.Kernel(), "-initrd", vm.Initrd(), "-append", vm.Cmdline(),
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0,romfile=,mac="+guestMAC.String(),
		"-serial", "file:"+vm.Serial, "-monitor", "unix:"+monitor+",server=on,wait=off", "-no-reboot")
	qemu.Stdout, qemu.Stderr = os.Stderr, os.Stderr
	if err := qemu.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- qemu.Wait() }()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report, err := WaitReport(ctx, vm.Serial)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("reported after %v, %v after its kernel's start", time.Since(start).Round(time.Millisecond), report.Uptime)
	checkReport(t, report, pod)
	if !report.Pinged[podtest.OutsideIP.String()] || report.Pinged["192.0.2.99"] {
		t.Errorf("guest pinged: %v", report.Pinged)
	}
	if want := "hello from outside " + pod.IPv4.Addr().String() + ":"; !strings.HasPrefix(report.Got[url], want) {
		t.Errorf("guest got %q, want %q and a port", report.Got[url], want)
	}
	pod.Node.Run(t, "ping", "-c1", "-W5", pod.IPv4.Addr().String())
	if page := pod.Node.Run(t, "curl", "--silent", "--max-time", "5", "http://"+pod.IPv4.Addr().String()+"/"); page != "hello from the guest\n" {
		t.Errorf("guest's page: %q", page)
	}

	start = time.Now()
	pressPowerButton(t, monitor)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("qemu: %v", err)
		}
		t.Logf("powered off after %v", time.Since(start).Round(time.Millisecond))
	case <-time.After(10 * time.Second):
		t.Error("the guest ignores the power button")
	}
}

func checkReport(t *testing.T, report Report, pod *podtest.Pod) {
	t.Helper()
	if report.Address != pod.IPv4 || report.MTU != 1450 || report.MAC != guestMAC.String() ||
		report.Hostname != "guest7" || report.Server != "169.254.75.10" || report.LeaseTime != "86400" {
		t.Errorf("report: %+v", report)
	}
	if want := []string{"default via 169.254.1.1 dev eth0", "169.254.1.1 dev eth0 scope link"}; !slices.Equal(report.Routes, want) {
		t.Errorf("guest's routes: %q, want %q", report.Routes, want)
	}
	if want := []string{"search ns.svc.cluster.local cluster.local", "nameserver 10.96.0.10"}; !slices.Equal(report.Resolv, want) {
		t.Errorf("guest's resolv.conf: %q, want %q", report.Resolv, want)
	}
}

// pressPowerButton asks QEMU's monitor to, and reads what it says until it
// ends, so that the command is not lost.
func pressPowerButton(t *testing.T, monitor string) {
	t.Helper()
	conn, err := net.Dial("unix", monitor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, "system_powerdown\n"); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
}

func TestWaitReportEnds(t *testing.T) {
	t.Parallel()
	serial := filepath.Join(t.TempDir(), "serial.log")
	if err := os.WriteFile(serial, []byte("Kernel panic\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := WaitReport(ctx, serial)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "Kernel panic") {
		t.Errorf("WaitReport of a guest that does not report: %v", err)
	}
}
