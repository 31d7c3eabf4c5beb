package prestart_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A NIC that is plugged in beside one that is served without a record is no second
// one with a default route.
func TestPlugBesideNoRecord(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0"}
	prepared, err := h.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	session, err := newHook(t, pod).Serve(t.Context(), prepared[0].NIC)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close(context.Background())
	nic, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{})
	if err != nil {
		t.Fatal(err)
	}
	podtest.WaitReleased(pod.NS, nic.Tap)
	nics := session.NICs()
	if len(nics) != 2 || nics[1] != nic {
		t.Errorf("plugged in is %+v, the NICs are %+v", nic, nics)
	}
	for _, n := range nics {
		given, err := podtest.NewGuest(t, pod.NS, n.Tap, n.MAC.HardwareAddr()).Udhcpc(t.Context())
		if err != nil || strings.Contains(given["staticroutes"], "0.0.0.0/0") != (n.Interface == "eth0") {
			t.Errorf("%s is given %v, %v", n.Tap, given, err)
		}
	}
}

// An interface that was prepared alone has other NICs beside it from then on: they
// are not said to be left out.
func TestPreparedLater(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0"}, true
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	var logged bytes.Buffer
	h.Interfaces, h.OutputDir, h.Log = []string{"eth0", "net1"}, t.TempDir(), slog.New(slog.NewTextHandler(&logged, nil))
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	file := readIn(t, h.OutputDir, prestart.NICsFile)
	run(t, h)
	for _, text := range []string{file, readIn(t, h.OutputDir, prestart.NICsFile), logged.String()} {
		if strings.Contains(text, "interface net1 (") {
			t.Errorf("net1 is said to be none of the VM's:\n%s", text)
		}
	}
}

// What the session says waits for nobody who is at work in the state directory.
func TestStatusWhileLocked(t *testing.T) {
	t.Parallel()
	h := newHook(t, podtest.NewPod(t, podtest.Flannel))
	run(t, h)
	lock, err := os.OpenFile(filepath.Join(h.StateDir, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.StateDir, "eth0.json")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) { // it waits meanwhile
		if status, err := asker(h).Status(t.Context()); err != nil || !status.Ready {
			t.Fatalf("who asks hears %+v, %v", status, err)
		}
	}
}

// Counters of one guard that is gone don't keep those of others away.
func TestCountersOfOthers(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0", "net1"}, true
	session := run(t, h)
	pod.Run(t, "nft", "delete table "+wiringOf(t, "net1").table)
	counters, err := session.GuardCounters()
	if err == nil || !strings.Contains(err.Error(), "net1") || len(counters["eth0"]) == 0 {
		t.Errorf("there are %v, %v", counters, err)
	}
}

// While the kernel takes its time to tell a guard's counters, nobody else waits. It looks
// for the session's socket among those of the process, so it runs alone.
func TestCountersOfSlowKernel(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.SkipCheck = true
	before := counterSockets(t)
	session := run(t, h)
	sockets := slices.DeleteFunc(counterSockets(t), func(fd int) bool { return slices.Contains(before, fd) })
	if len(sockets) != 1 {
		t.Fatalf("the counters' socket is one of %v", sockets)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	if err := errors.Join(unix.Dup3(pair[0], sockets[0], unix.O_CLOEXEC), unix.Close(pair[0])); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		_, err := session.GuardCounters()
		read <- err
	}()
	if n, err := unix.Read(pair[1], make([]byte, 4096)); n == 0 || err != nil {
		t.Fatalf("it asks by %d bytes, error %v", n, err)
	}
	told := make(chan control.Status, 1)
	go func() { told <- session.Status() }()
	select {
	case s := <-told:
		if !s.Ready {
			t.Errorf("the status is %+v", s)
		}
	case <-time.After(time.Minute):
		t.Error("who asks for the status waits for the counters")
	}
	select {
	case err := <-read:
		t.Errorf("the counters were read: %v", err)
	default:
	}
	// What is no answer of the kernel is passed over, and then there is none in time.
	if err := unix.SetsockoptTimeval(sockets[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(pair[1], []byte("later")); err != nil {
		t.Fatal(err)
	}
	if err := <-read; !errors.Is(err, unix.EAGAIN) {
		t.Errorf("the counters' error is %v", err)
	}
}

// counterSockets are the process's netlink sockets of netfilter that block.
func counterSockets(t *testing.T) (all []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		domain, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		if err == nil && domain == unix.AF_NETLINK && protocol == unix.NETLINK_NETFILTER && flags&unix.O_NONBLOCK == 0 {
			all = append(all, fd)
		}
	}
	return all
}

// A NIC whose record was deleted just now can be unplugged: the session has a copy.
func TestUnplugWithoutRecord(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0"}, true
	session := run(t, h)
	before := podtest.TakeSnapshot(t, pod.NS)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.StateDir, "net1.json")); err != nil {
		t.Fatal(err)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after the unplug:\n%s", d)
	}
}

// A session changes no other namespace than its own, though that is at its path now.
func TestPlugElsewhere(t *testing.T) {
	t.Parallel()
	pod, other := podtest.NewPod(t, podtest.Flannel), podtest.NewPod(t, podtest.Flannel)
	before := podtest.TakeSnapshot(t, other.NS)
	h := newHook(t, pod)
	h.Netns, h.Timeout = filepath.Join(t.TempDir(), "netns"), 2*time.Second
	point := func(path string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(h.Netns), os.Symlink(path, h.Netns)); err != nil {
			t.Fatal(err)
		}
	}
	point(pod.Path())
	session := run(t, h)
	point(other.Path())
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err == nil || !strings.Contains(err.Error(), "the session serves net:[") {
		t.Errorf("plug elsewhere: %v", err)
	}
	if err := session.Unplug(t.Context(), "eth0"); err == nil || !strings.Contains(err.Error(), "the session serves net:[") {
		t.Errorf("unplug elsewhere: %v", err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, other.NS)); d != "" {
		t.Errorf("the other pod:\n%s", d)
	}
	if s := session.Status(); !s.Ready || len(s.Interfaces) != 1 {
		t.Errorf("the session says %+v", s)
	}
}

// A tap with the alias of an interface that is shared already is not the pod's: nobody
// is told that the VM does not get it.
func TestTapIsNotLeftOut(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.KindnetDual)
	addNet1(t, pod)
	var logged bytes.Buffer
	h := newHook(t, pod)
	h.Interfaces, h.Network.Datapath, h.Log = []string{"eth0"}, "redirect", slog.New(slog.NewTextHandler(&logged, nil))
	session := run(t, h)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	if status := session.Status().Of("net1"); strings.Contains(fmt.Sprint(status.Omitted), "tap-eth0") || strings.Contains(logged.String(), "interface tap-eth0 (") {
		t.Errorf("the tap is said to be none of the VM's: %v\n%s", status.Omitted, logged.String())
	}
}

// Ports of an interface that was plugged in are changed as those of another, and stay so
// in the next session.
func TestPortsOfPluggedChange(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck, h.Network.Datapath = []string{"eth0"}, true, "redirect"
	session := run(t, h)
	shared := prepare.Options{Datapath: "redirect"}
	if err := shared.PodPorts.UnmarshalText([]byte("8080")); err != nil {
		t.Fatal(err)
	}
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{Network: &shared}); err != nil {
		t.Fatal(err)
	}
	other := h
	other.Interfaces = []string{"net1"}
	if err := other.Network.PodPorts.UnmarshalText([]byte("9090")); err != nil {
		t.Fatal(err)
	}
	prepared, err := other.Prepare(t.Context())
	if err != nil || prepared[0].PodPorts.String() != "9090" {
		t.Errorf("prepare gives %+v, %v", prepared, err)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, in := range run(t, h).Interfaces() {
		if in.Interface == "net1" && in.PodPorts.String() != "9090" {
			t.Errorf("the next session has the ports %s", in.PodPorts)
		}
	}
	other.Network.MTU = 1400
	var refused *prepare.OptionsError
	if _, err := other.Prepare(t.Context()); !errors.As(err, &refused) {
		t.Errorf("another MTU is taken: %v", err)
	}
}
