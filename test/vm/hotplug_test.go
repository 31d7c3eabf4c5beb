package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

// addInterface gives the pod an interface with the address 10.9.n.7, behind which the
// node is the gateway.
func addInterface(t *testing.T, pod *podtest.Pod, n int) {
	t.Helper()
	name, network := fmt.Sprintf("net%d", n), fmt.Sprintf("10.9.%d.", n)
	pod.IP(t, "link add "+name+" type veth peer name "+name+" netns "+pod.Node.Path())
	pod.Run(t, "sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1") // the order of its routes would not come back
	pod.IP(t, "link set "+name+" up", "addr add "+network+"7/24 dev "+name, fmt.Sprintf("route add 10.99.%d.0/24 via %s1 dev %s", n, network, name))
	pod.Node.IP(t, "link set "+name+" up", "addr add "+network+"1/24 dev "+name)
}

// hears waits until the guest has printed a line so many times.
func (m *machine) hears(t *testing.T, line string, times int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	ctx, stop := m.WhileRunning(ctx)
	defer stop()
	text, err := vmtest.WaitSerial(ctx, m.vm.Serial, func(text string) bool { return strings.Count(text, "\n"+line+"\n") >= times })
	if err != nil {
		t.Fatalf("wait for %s: %v; the guest printed\n%s", line, err, text)
	}
}

// fails runs a verb that must fail with these words, and not change the pod.
func (m *machine) fails(t *testing.T, words []string, verb string, args ...string) {
	t.Helper()
	before := podtest.TakeSnapshot(t, m.pod.NS)
	out, err := m.program.Output(t, verb, args...)
	if err == nil {
		t.Fatalf("%s %q prints %s", verb, args, out)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s %q: no %q in: %v", verb, args, word, err)
		}
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, m.pod.NS)); d != "" {
		t.Errorf("%s %q changed the pod:\n%s", verb, args, d)
	}
}

// A VM that runs gets a second NIC, by either datapath, with its lease, and loses it
// again. Its first NIC does not notice. A VM that is started again has what it had.
func TestHotplug(t *testing.T) {
	testHotplug(t, podtest.NewPod(t, podtest.Flannel), func(m *machine) {
		// What is plugged in when the container is killed, with the VM, the next one has.
		m.program.Run(t, "plug", "net1", "--hostname", "second")
		if err := errors.Join(m.Signal(syscall.SIGKILL), m.Kill(), os.Remove(m.vm.Serial)); err != nil {
			t.Fatal(err)
		}
		m.launch(t)
		m.hears(t, "VLN-READY", 1)
		m.hears(t, "VLN-PING 10.9.1.1 ok", 1)
		m.program.Run(t, "unplug", "net1")
		m.hears(t, "VLN-UNPLUGGED eth1", 1)
	})
}

// A libvirtd does the same, for a program that has no privileges in effect. A guest that
// is paused releases a NIC only later.
func TestHotplugOfLibvirtd(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Flannel)
	launchtest.StartLibvirtd(t, pod.NS)
	testHotplug(t, pod, func(m *machine) {
		m.program.Run(t, "plug", "net1")
		m.hears(t, "VLN-PING 10.9.1.1 ok", 3)
		pod.Run(t, "virsh", "-c", uriOfLibvirtd, "suspend", "vm")
		m.fails(t, []string{"unplug net1: ", "the guest has not released the NIC"}, "unplug", "net1", "--timeout", "1s")
		pod.Run(t, "virsh", "-c", uriOfLibvirtd, "resume", "vm")
		m.hears(t, "VLN-UNPLUGGED eth1", 3)
		m.program.Run(t, "unplug", "net1", "--timeout", "60s")

		// What can't be put back, since another is at work in the state directory, is the
		// VM's again.
		m.program.Run(t, "plug", "net1")
		m.hears(t, "VLN-PING 10.9.1.1 ok", 4)
		lock, err := os.OpenFile(filepath.Join(m.program.StateDir, "lock"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Close()
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if out, err := m.program.Output(t, "unplug", "net1"); err == nil || !strings.Contains(err.Error(), "unplug net1: ") {
			t.Errorf("unplug where nothing can be put back: %s, %v", out, err)
		}
		m.hears(t, "VLN-PING 10.9.1.1 ok", 5)
		lock.Close()
		m.program.Run(t, "unplug", "net1")
		m.hears(t, "VLN-UNPLUGGED eth1", 5)

		m.plugUnanswered(t)
		m.hears(t, "VLN-PING 10.9.1.1 ok", 6)

		// A NIC that its guest has released meanwhile is no reason for the next program not to
		// take the VM over.
		pod.Run(t, "virsh", "-c", uriOfLibvirtd, "detach-device-alias", "vm", "ua-net1", "--live")
		m.log.Until(t, "the domain has released the NIC", func(string) bool {
			return !strings.Contains(pod.Run(t, "virsh", "-c", uriOfLibvirtd, "domiflist", "vm"), "tap-net1")
		})
		if err := m.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		m.launch(t)
		m.program.Run(t, "wait", "--for", "network", "--timeout", "60s")
		if log := m.log.String(); !strings.Contains(log, "domain taken over") || !strings.Contains(log, "the VM has no network by this NIC") {
			t.Error("the VM is not taken over without its NIC")
		}
		m.program.Run(t, "unplug", "net1")
	}, "--connect", uriOfLibvirtd)
}

// freeze has libvirt answer nothing, until the table is deleted.
const freeze = "add table ip hang; add chain ip hang input { type filter hook input priority 0; }; " +
	"add rule ip hang input tcp dport 16509 counter drop"

// plugUnanswered plugs net1 in while libvirt does not answer, until nobody waits for it any
// more: what libvirt does later finds the NIC prepared and served.
func (m *machine) plugUnanswered(t *testing.T) {
	t.Helper()
	m.pod.Run(t, "nft", freeze)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	plug := m.program.Command(ctx, "plug", "net1")
	if err := plug.Start(); err != nil {
		t.Fatal(err)
	}
	m.log.Until(t, "libvirt was asked", func(string) bool {
		return !strings.Contains(m.pod.Run(t, "nft", "list table ip hang"), "counter packets 0 ")
	})
	cancel()
	_ = plug.Wait() // killed
	m.log.Wait(t, "the domain may get the NIC yet")
	m.pod.Run(t, "nft", "delete table ip hang")
}

func testHotplug(t *testing.T, pod *podtest.Pod, further func(*machine), args ...string) {
	addInterface(t, pod, 1)
	addInterface(t, pod, 2)
	untouched := podtest.TakeSnapshot(t, pod.NS)
	m := startVM(t, pod, vmtest.VM{Ports: 2}, append([]string{"-i", "eth0", "--hotplug"}, args...)...) // one is for eth0
	m.report(t)
	before := podtest.TakeSnapshot(t, pod.NS)

	var pinged bytes.Buffer
	ping := pod.Node.Command(t.Context(), "ping", "-i", "0.2", "-w", "600", pod.IPv4.Addr().String())
	ping.SysProcAttr = nil // else it dies with the thread that starts it
	ping.Stdout = &pinged
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	for n, datapath := range []string{"redirect", "bridge"} {
		start := time.Now()
		if out := m.program.Run(t, "plug", "net1", "--datapath", datapath, "--queues", strconv.Itoa(n+1)); !strings.Contains(out, "attached to the domain vm") {
			t.Errorf("plug prints %s", out)
		}
		plugged := time.Since(start)
		m.hears(t, "VLN-PLUGGED eth1 10.9.1.7/24", n+1)
		leased := time.Since(start)
		m.hears(t, "VLN-PING 10.9.1.1 ok", n+1)
		t.Logf("%s: plugged in after %v, leased after %v", datapath, plugged.Round(time.Millisecond), leased.Round(time.Millisecond))
		m.program.Run(t, "wait", "--for", "lease", "--timeout", "20s")
		pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.9.1.7")
		m.fails(t, []string{"plug net1: it is plugged in already"}, "plug", "net1")
		m.fails(t, []string{"plug net2: ", "No more available PCI slots", "pcie-root-port"}, "plug", "net2")

		m.program.Run(t, "unplug", "net1")
		m.hears(t, "VLN-UNPLUGGED eth1", n+1)
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after unplug:\n%s", d)
		}
	}
	if err := ping.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	err := ping.Wait()
	answered := regexp.MustCompile(`icmp_seq=(\d+) ttl`).FindAllStringSubmatch(pinged.String(), -1)
	// The last one may have been on its way.
	if n := len(answered); err != nil || n == 0 || answered[n-1][1] != strconv.Itoa(n) {
		t.Errorf("meanwhile the first NIC: %v\n%s", err, pinged.String())
	}
	further(m)
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("at the end:\n%s", d)
	}
	if err := m.End(podtest.Patience); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
	if !strings.Contains(m.serial(t), "VLN-SHUTDOWN") {
		t.Error("the guest was not asked to shut down")
	}
	m.program.Run(t, "restore")
	if d := podtest.Diff(untouched, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// A guest that does not release a NIC keeps it, with its network.
func TestGuestKeepsNIC(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Flannel)
	addInterface(t, pod, 1)
	m := startVM(t, pod, vmtest.VM{Ports: 2, Words: []string{"acpiphp.disable=1"}}, "-i", "eth0", "--hotplug")
	m.report(t)
	m.program.Run(t, "plug", "net1")
	for range 2 {
		m.fails(t, []string{"unplug net1: ", "the guest has not released the NIC", "not within 2s", "--timeout"}, "unplug", "net1", "--timeout", "2s")
	}
	if out := m.program.Run(t, "status", "-i", "net1"); !regexp.MustCompile(`tap-net1 +up, port of br-net1|tap-net1 +up, MTU`).MatchString(out) {
		t.Errorf("the status is\n%s", out)
	}
	pod.Node.Run(t, "ping", "-c3", "-i0.2", "-W20", pod.IPv4.Addr().String())
}
