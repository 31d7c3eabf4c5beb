package vmtest

import (
	"context"
	"errors"
	"fmt"
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

	vm := VM{GuestDir: podtest.Built(t, "guest"), Ping: []string{podtest.OutsideIP.String(), "192.0.2.99"}, Get: []string{url}}
	start := time.Now()
	machine := Start(t, pod.NS, vm,
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0,romfile=,mac="+guestMAC.String())
	report := machine.Report(t, time.Minute)
	t.Logf("reported after %v, %v after its kernel's start", time.Since(start).Round(time.Millisecond), report.Uptime)
	checkReport(t, report, pod)
	if !report.Pinged[podtest.OutsideIP.String()] || report.Pinged["192.0.2.99"] {
		t.Errorf("guest pinged: %v", report.Pinged)
	}
	if want := "hello from outside " + pod.IPv4.Addr().String() + ":"; !strings.HasPrefix(report.Got[url], want) {
		t.Errorf("guest got %q, want %q and a port", report.Got[url], want)
	}
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())
	if page := pod.Node.Run(t, "curl", "--silent", "--max-time", "5", "http://"+pod.IPv4.Addr().String()+"/"); page != "hello from the guest\n" {
		t.Errorf("guest's page: %q", page)
	}

	start = time.Now()
	machine.PowerOff(t, 30*time.Second)
	t.Logf("powered off after %v", time.Since(start).Round(time.Millisecond))
}

// Whoever waits for a guest whose QEMU was killed is told so, at once.
func TestReportOfKilledQEMU(t *testing.T) {
	t.Parallel()
	machine := Start(t, podtest.New(t), VM{GuestDir: podtest.Built(t, "guest")}, "-S")
	said := make(chan error)
	go func() {
		_, err := machine.report(time.Hour)
		said <- err
	}()
	machine.Kill()
	if err := <-said; !strings.Contains(err.Error(), "QEMU has ended: signal: killed") {
		t.Errorf("report: %v", err)
	}
}

// A guest that does not report has QEMU's monitor asked where it is.
func TestReportOfStoppedQEMU(t *testing.T) {
	t.Parallel()
	machine := Start(t, podtest.New(t), VM{GuestDir: podtest.Built(t, "guest")}, "-S")
	deadline := time.Now().Add(time.Minute)
	for { // until its monitor is there
		_, err := machine.report(100 * time.Millisecond)
		if errors.Is(err, context.DeadlineExceeded) && strings.Contains(err.Error(), "VM status: paused (prelaunch)") && strings.Contains(err.Error(), "EIP=0000fff0") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("report: %v", err)
		}
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
