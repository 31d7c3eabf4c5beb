package prestart_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// addNet1 gives the pod a second interface, behind which the node is the gateway.
func addNet1(t *testing.T, pod *podtest.Pod) {
	t.Helper()
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path())
	pod.Run(t, "sysctl", "-qw", "net.ipv6.conf.net1.disable_ipv6=1") // the order of its routes would not come back
	pod.IP(t, "link set net1 up",
		"addr add 10.9.0.7/24 dev net1", "route add default via 10.9.0.1 dev net1 metric 500")
	pod.Node.IP(t, "link set net1 up", "addr add 10.9.0.1/24 dev net1")
}

// A guest keeps its lease and its traffic while a second NIC fails to come, comes,
// breaks and goes.
func TestPlugUnplug(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.Interfaces, h.Timeout, h.OutputDir = []string{"eth0"}, 5*time.Second, t.TempDir()
	session := run(t, h)
	events := session.Events(t.Context())

	first, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	var pinged bytes.Buffer
	ping := first.Command(t.Context(), "ping", "-i", "0.1", "-w", "300", podtest.OutsideIP.String())
	ping.SysProcAttr = nil // else it dies with the thread that starts it
	ping.Stdout = &pinged
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	received := session.Status().Of("eth0").Lease.Received
	alone := podtest.TakeSnapshot(t, pod.NS)
	isAlone := func(after string) {
		t.Helper()
		if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after %s:\n%s", after, d)
		}
		if s := session.Status(); !s.Ready || len(s.Interfaces) != 1 || len(session.NICs()) != 1 {
			t.Errorf("after %s the status is %+v", after, s)
		}
		if files, err := filepath.Glob(filepath.Join(h.StateDir, "net1*")); err != nil || len(files) > 0 {
			t.Errorf("after %s there are %q, %v", after, files, err)
		}
		if nics := readIn(t, h.OutputDir, prestart.NICsFile); strings.Contains(nics, "tap-net1") {
			t.Errorf("after %s the NICs are %s", after, nics)
		}
	}

	if _, err := session.Plug(t.Context(), "net7", prestart.InterfaceOptions{}); !isNotFound(err, "net7") {
		t.Errorf("an interface that does not come: %v", err)
	}
	if _, err := session.Plug(t.Context(), "eth0", prestart.InterfaceOptions{}); err == nil || !strings.Contains(err.Error(), "plugged in already") {
		t.Errorf("one that is there: %v", err)
	}
	isAlone("a plug of none")
	pod.Node.IP(t, "addr flush dev net1")
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); !isCheckError(err, "net1") {
		t.Errorf("a plug whose gateway is silent: %v", err)
	}
	isAlone("a plug that failed")
	pod.Node.IP(t, "addr add 10.9.0.1/24 dev net1")

	nic, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if nic.Tap != "tap-net1" || len(session.Interfaces()) != 2 || !strings.Contains(readIn(t, h.OutputDir, prestart.NICsFile), "tap-net1") {
		t.Errorf("plugged in is %+v", nic)
	}
	second, err := podtest.StartGuest(t.Context(), pod.NS, nic.Tap, nic.MAC.HardwareAddr())
	if err != nil {
		t.Fatal(err)
	}
	if given, err := second.Udhcpc(t.Context()); err != nil || given["ip"] != "10.9.0.7" || given["router"] != "" {
		t.Errorf("the second NIC's lease is %v, %v", given, err)
	}
	if err := session.WaitLease(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	status, err := asker(h).Wait(t.Context(), control.ForLease)
	if err != nil || !status.Ready || len(status.Of("eth0").Omitted) > 0 || status.Of("net1").Lease.State != lease.Bound || status.Of("eth0").Lease.State != lease.Bound {
		t.Errorf("who asks hears %+v, %v", status, err)
	}
	if counters, err := session.GuardCounters(); err != nil || !slices.Equal(slices.Sorted(maps.Keys(counters)), []string{"eth0", "net1"}) {
		t.Errorf("there are counters %v, %v", counters, err)
	}
	if err := session.Unplug(t.Context(), "net1"); !errors.Is(err, check.ErrTapInUse) {
		t.Errorf("unplug under a VM: %v", err)
	}
	if _, err := second.Udhcpc(t.Context()); err != nil {
		t.Errorf("after an unplug that was refused: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Fatal(err)
	}
	isAlone("the unplug")
	if err := session.Unplug(t.Context(), "net1"); !isNotFound(err, "net1") {
		t.Errorf("unplug of what is not there: %v", err)
	}

	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "link del tap-net1")
	var bound, broken bool
	for e := range events {
		bound = bound || e.Interface == "net1" && e.Lease != nil && e.Lease.Type == lease.EventBound
		if err, ok := errors.AsType[*prestart.ServeError](e.Err); ok {
			if broken = true; e.Interface != "net1" || err.Interface != "net1" {
				t.Errorf("the event of a tap that was deleted is %+v", e)
			}
		}
		if bound && broken {
			break
		}
	}
	if s := session.Status(); s.Ready || s.Of("net1").Error == "" || s.Of("eth0").Error != "" || !strings.Contains(s.NotReady(), "net1") {
		t.Errorf("without its tap the status is %+v", s)
	}
	if err := session.WaitLease(t.Context(), "net1"); err == nil {
		t.Error("the lease of a NIC that is not served is waited for")
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Error(err)
	}
	isAlone("the unplug without a tap")

	if err := ping.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = ping.Wait()
	answered := regexp.MustCompile(`icmp_seq=(\d+) ttl`).FindAllStringSubmatch(pinged.String(), -1)
	// The last one may have been on its way.
	if n := len(answered); err != nil || n == 0 || answered[n-1][1] != strconv.Itoa(n) {
		t.Errorf("meanwhile the first NIC: %v\n%s", err, pinged.String())
	}
	if l := session.Status().Of("eth0").Lease; l.State != lease.Bound || !maps.Equal(l.Received, received) {
		t.Errorf("its lease is %+v, and had received %v", l, received)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); !errors.Is(err, prestart.ErrSessionClosed) {
		t.Errorf("plug into what is closed: %v", err)
	}
	if _, err := session.GuardCounters(); !errors.Is(err, prestart.ErrSessionClosed) {
		t.Errorf("counters of what is closed: %v", err)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// Who has the NICs serves them, without the record, from a state directory of its
// own.
func TestServeWithoutRecord(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	h := newHook(t, pod)
	h.OutputDir = t.TempDir()
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(h.OutputDir, prestart.NICsFile))
	if err != nil {
		t.Fatal(err)
	}
	nics, err := prestart.ParseNICs(text)
	if err != nil {
		t.Fatal(err)
	}
	other := newHook(t, pod)
	broken := nics[0]
	broken.Tap = "no tap/0"
	if _, err := other.Serve(t.Context(), broken); err == nil || !strings.Contains(err.Error(), "no tap/0") {
		t.Errorf("a NIC that is none: %v", err)
	}
	uplink, second := nics[0], nics[0]
	uplink.Tap, second.Interface = wiringOf(t, "eth0").uplink, "net1"
	if _, err := other.Serve(t.Context(), uplink); err == nil || !strings.Contains(err.Error(), uplink.Tap+" is no tap") {
		t.Errorf("the pod's network would be served: %v", err)
	}
	for _, n := range []guest.NIC{nics[0], second} {
		if _, err := other.Serve(t.Context(), nics[0], n); err == nil || !strings.Contains(err.Error(), "has the name") {
			t.Errorf("one tap would be served twice: %v", err)
		}
	}
	after := other
	after.RestoreAfter = true
	if _, err := after.Serve(t.Context(), nics...); err == nil {
		t.Error("a pod is to be put back without a record")
	}
	session, err := other.Serve(t.Context(), nics...)
	if err != nil {
		t.Fatal(err)
	}
	vm := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	given, err := vm.Udhcpc(t.Context())
	if err != nil || given["ip"] != pod.IPv4.Addr().String() || given["hostname"] != "vm-7" || given["dns"] != "10.96.0.10" {
		t.Errorf("the lease is %v, %v", given, err)
	}
	status, err := asker(other).Wait(t.Context(), control.ForLease)
	if err != nil || status.Of("eth0").Unwatched == "" || status.Of("eth0").Router == nil {
		t.Errorf("who asks hears %+v, %v", status, err)
	}
	if status, err := other.Status(t.Context()); err != nil || !status.Prepared || len(status.Unrecorded) > 0 || len(status.Interfaces) != 1 || status.Interfaces[0].Lease == nil || status.Interfaces[0].Interface.Interface != "eth0" {
		t.Errorf("the status where nothing is recorded is %+v, %v", status, err)
	}
	// Who asks in the wrong place hears who serves.
	_, err = asker(h).Status(t.Context())
	if !errors.Is(err, control.ErrNoAnswer) || !strings.Contains(err.Error(), fmt.Sprintf("process %d (", os.Getpid())) {
		t.Errorf("where there is no socket: %v", err)
	}
	if got := session.Interfaces(); len(got) != 1 || got[0].Tap != "tap-eth0" || len(got[0].Addresses) != 2 {
		t.Errorf("it serves %+v", got)
	}
	pod.IP(t, "link del tap-eth0")
	if err := session.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "serve eth0: ") {
		t.Errorf("it ends with %v", err)
	}
	_ = session.Close(t.Context()) // it says the same
}

// What is in the way of the control socket is no reason not to serve.
func TestControlSocketInTheWay(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	socket := filepath.Join(h.StateDir, control.SocketName)
	if err := os.MkdirAll(socket, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, h)
	if !strings.Contains(log.String(), "can't open the control socket") || !strings.Contains(log.String(), "it is a directory: remove it") {
		t.Errorf("the log does not say why:\n%s", log.String())
	}
	if err := os.Remove(socket); err != nil {
		t.Fatal(err)
	}
	if _, err := asker(h).Wait(t.Context(), control.ForNetwork); err != nil {
		t.Error(err)
	}
}

// An interface that is not prepared is no error to look at.
func TestStatusOfNamed(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0"}
	if s, err := h.Status(t.Context()); err != nil || s.Prepared || !slices.Equal(s.NotPrepared, h.Interfaces) {
		t.Errorf("status is %+v, %v", s, err)
	}
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	both := h
	both.Interfaces = []string{"eth0", "net1"}
	if s, err := both.Status(t.Context()); err != nil || s.Prepared || len(s.Interfaces) != 1 || !slices.Equal(s.NotPrepared, []string{"net1"}) {
		t.Errorf("status is %+v, %v", s, err)
	}
	second := h
	second.Interfaces = []string{"net1"}
	if _, err := second.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, h := range []prestart.Hook{h, both} {
		s, err := h.Status(t.Context())
		if err != nil || !s.Prepared {
			t.Fatalf("status is %+v, %v", s, err)
		}
		if strings.Contains(fmt.Sprint(s.Interfaces[0].Omitted), "interface net1") {
			t.Errorf("with net1 prepared, %v is left out", s.Interfaces[0].Omitted)
		}
	}
	gone := h
	gone.Netns = "/run/netns/not/there"
	if err := gone.InNetns(func() error { return nil }); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "the pod is gone") {
		t.Errorf("a path that is not there: %v", err)
	}
}

// NICs of a file are those that somebody has prepared.
func TestParseNICs(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "read NICs: ",
		`{"interfaces": []}`:      "the file has none",
		`{"interfaces": [{"mac":`: "read NICs: ",
	} {
		if nics, err := prestart.ParseNICs([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", text, nics, err)
		}
	}
}
