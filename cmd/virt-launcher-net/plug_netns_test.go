package main

import (
	"encoding/json"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// addNet1 gives the pod a second interface, behind which the node is the gateway.
func addNet1(t *testing.T, pod *podtest.Pod) {
	t.Helper()
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path())
	pod.Run(t, "sysctl", "-qw", "net.ipv6.conf.net1.disable_ipv6=1") // the order of its routes would not come back
	pod.IP(t, "link set net1 up", "addr add 10.9.0.7/24 dev net1", "route add 10.99.0.0/16 via 10.9.0.1 dev net1")
	pod.Node.IP(t, "link set net1 up", "addr add 10.9.0.1/24 dev net1")
}

// What run keeps for hotplug is enough for it, by both datapaths, and is in effect on
// no thread but meanwhile.
func TestHotplugPrivileges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		user, datapath string
		caps           []string
		permitted      string
	}{
		{"0", "bridge", []string{"net_admin", "net_raw"}, "0000000000003000"},
		{"1000", "redirect", []string{"net_admin", "net_raw", "bpf", "perfmon"}, "000000c000003000"},
	} {
		t.Run(c.datapath+" of user "+c.user, func(t *testing.T) {
			t.Parallel()
			conf := newConfined(t, c.user)
			addNet1(t, conf.pod)
			process, end := conf.start(c.caps, "run", "-i", "eth0", "--hotplug", "--datapath", c.datapath)
			checkHotplug(t, conf.pod, process.Pid, c.permitted, c.datapath, func(args ...string) string { return conf.must(nil, args...) })
			end()
		})
	}
}

// runHotplug runs the program for a pod with a second interface, which may be plugged in,
// and returns the arguments for who asks it.
func runHotplug(t *testing.T) (pod *podtest.Pod, common []string, run *podtest.Cmd) {
	t.Helper()
	pod = podtest.NewPod(t, podtest.CalicoDual)
	addNet1(t, pod)
	common = podArgs(t, pod)
	run = podtest.Command(t.Context(), nil, os.Args[0], append([]string{"run", "-i", "eth0", "--hotplug", "--resolv-conf", "/dev/null"}, common...)...)
	if err := startMain(run); err != nil {
		t.Fatal(err)
	}
	return pod, common, run
}

// From outside the pod it takes no more: a thread was left in the pod's namespace.
func TestHotplugFromOutside(t *testing.T) {
	t.Parallel()
	pod, common, cmd := runHotplug(t)
	checkHotplug(t, pod, cmd.Process.Pid, "000000c000003000", "bridge", func(args ...string) string {
		t.Helper()
		r := runCLI(t, "", append(args, common...)...)
		if r.code != exitDone {
			t.Fatalf("%v: %s", args, r.stderr)
		}
		return r.stdout
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// checkHotplug plugs net1 into a session, leases, unplugs, twice.
func checkHotplug(t *testing.T, pod *podtest.Pod, pid int, permitted, datapath string, must func(...string) string) {
	t.Helper()
	const none = "0000000000000000"
	want := []string{"CapAmb " + none, "CapEff " + none, "CapInh " + none, "CapPrm " + permitted, "NoNewPrivs 1"}
	if got := threads(t, pid); !slices.Equal(got, want) {
		t.Errorf("before a plug there is %v", got)
	}
	podtest.WaitReleased(pod.NS, "tap-eth0")
	before := podtest.TakeSnapshot(t, pod.NS)
	for range 2 {
		var plugged struct {
			Tap, MAC, Libvirt, Datapath string
			Monitor                     []string
		}
		if err := json.Unmarshal([]byte(must("plug", "net1", "--mtu", "1400", "--hostname", "second", "-o", "json")), &plugged); err != nil {
			t.Fatal(err)
		}
		if plugged.Tap != "tap-net1" || plugged.Datapath != datapath || !strings.Contains(plugged.Libvirt, `dev="tap-net1"`) || len(plugged.Monitor) != 2 ||
			!strings.HasPrefix(plugged.Monitor[0], "netdev_add tap,") || !strings.HasPrefix(plugged.Monitor[1], "device_add virtio-net-pci,") {
			t.Errorf("plugged in is %+v", plugged)
		}
		if got := threads(t, pid); !slices.Equal(got, want) {
			t.Errorf("after a plug there is %v", got)
		}
		out := must("status", "-i", "net1")
		if filtered := strings.Contains(out, "checksum filter  on"); filtered != strings.Contains(permitted, "c") {
			t.Errorf("the status is\n%s", out)
		}
		podtest.WaitReleased(pod.NS, "tap-net1")
		nic, err := podtest.StartGuest(t.Context(), pod.NS, "tap-net1", parseMAC(t, plugged.MAC))
		if err != nil {
			t.Fatal(err)
		}
		if lease, err := nic.Udhcpc(t.Context()); err != nil || lease["ip"] != "10.9.0.7" || lease["mtu"] != "1400" || lease["hostname"] != "second" {
			t.Errorf("the lease is %v, %v", lease, err)
		}
		if err := nic.Close(); err != nil {
			t.Fatal(err)
		}
		must("unplug", "net1")
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after unplug:\n%s", d)
		}
	}
}

// What plug prints for QEMU's monitor attaches the NIC: as it is to a machine pc, in a root
// port, as it says, to a q35. What the documentation says detaches it.
func TestPluggedByMonitor(t *testing.T) {
	t.Parallel()
	pod, common, cmd := runHotplug(t)
	r := runCLI(t, "", append([]string{"plug", "net1"}, common...)...)
	_, printed, ok := strings.Cut(r.stdout, "with QEMU alone by its monitor\n")
	lines := strings.SplitN(printed, "\n", 3)
	if r.code != exitDone || !ok || len(lines) != 3 || !strings.Contains(lines[2], "q35 machine wants ,bus=ID") {
		t.Fatalf("%+v", r)
	}
	for _, c := range []struct{ machine, add, refused string }{
		{"pc", lines[1], ""},
		{"q35", lines[1] + ",bus=rp1", ""},
		{"q35", lines[1], "does not support hotplugging"},
	} {
		qemu := podtest.Command(t.Context(), pod.NS, "qemu-system-x86_64", "-S", "-machine", c.machine+",accel=tcg", "-m", "32", "-nodefaults", "-display", "none", "-monitor", "stdio")
		if c.machine == "q35" {
			qemu.Args = append(qemu.Args, "-device", "pcie-root-port,id=rp1,chassis=1")
		}
		qemu.Stdin = strings.NewReader(strings.Join([]string{lines[0], c.add, "info network", "device_del ua-net1", "quit", ""}, "\n"))
		out, err := qemu.CombinedOutput()
		text := string(out)
		if attached := strings.Contains(text, "ua-net1: index=0,type=nic"); err != nil || attached != (c.refused == "") || !strings.Contains(text, c.refused) || attached && strings.Contains(text, "Error") {
			t.Errorf("%s, %s: %v\n%s", c.machine, c.add, err, text)
		}
	}
	if r := runCLI(t, "", append([]string{"unplug", "net1"}, common...)...); r.code != exitDone {
		t.Errorf("%+v", r)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// What can't be plugged or unplugged says why, and changes nothing.
func TestHotplugErrors(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	addNet1(t, pod)
	common := podArgs(t, pod)
	output := t.TempDir()
	refused := func(line string, code int, wants ...string) {
		t.Helper()
		podtest.WaitReleased(pod.NS, "tap-eth0")
		before := podtest.TakeSnapshot(t, pod.NS)
		r := runCLI(t, "", append(strings.Fields(line), common...)...)
		lines := strings.Split(strings.TrimSpace(r.stderr), "\n")
		for _, want := range wants {
			if r.code != code || !strings.Contains(lines[len(lines)-1], want) {
				t.Errorf("%s: exit code %d, no %q in %q", line, r.code, want, r.stderr)
			}
		}
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("%s changed the pod:\n%s", line, d)
		}
	}
	run := func(args ...string) (end func()) {
		t.Helper()
		cmd := podtest.Command(t.Context(), nil, os.Args[0], slices.Concat([]string{"run", "-i", "eth0", "--resolv-conf", "/dev/null"}, args, common)...)
		if err := startMain(cmd); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		}
	}
	refused("plug net1", exitFailed, "nobody serves")
	end := run()
	refused("plug net1", exitFailed, "net1", "not started for hotplug", "run --hotplug keeps them")
	refused("unplug eth0", exitFailed, "eth0", "run --hotplug keeps them")
	end()
	end = run("--hotplug", "--output-dir", output, "--mac", "net1=52:54:00:00:00:01")
	defer end()
	refused("plug net7 --timeout 100ms", exitFailed, "plug net7: ", "there are: ", "timed out after 100ms (--timeout waits longer)")
	refused("plug eth0", exitFailed, "plug eth0: it is plugged in already")
	refused("unplug net1", exitFailed, "net1", "there are: eth0")
	refused("plug net1 -i net1", exitUsage, "plug takes the interface as its argument")
	refused("plug a/b", exitUsage, "a/b")
	refused("plug net1 --mtu x", exitUsage, "--mtu")
	refused("plug net1 --mtu 9000", exitFailed, "plug net1: ", "MTU 9000")
	refused("plug net1 --mac "+pod.MAC.String(), exitFailed, "eth0 and net1 both have the MAC "+pod.MAC.String())
	refused("plug net1 --tap-name tap-eth0", exitFailed, "plug net1: ", "tap-eth0")
	if left, err := filepath.Glob(filepath.Join(common[len(common)-1], "net1*")); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
	if r := runCLI(t, "", append([]string{"plug", "net1"}, common...)...); r.code != exitDone || !strings.Contains(r.stdout, "52:54:00:00:00:01") {
		t.Fatalf("%+v", r)
	}
	nic, err := podtest.StartGuest(t.Context(), pod.NS, "tap-net1", parseMAC(t, "52:54:00:00:00:01"))
	if err != nil {
		t.Fatal(err)
	}
	refused("plug net1", exitFailed, "plug net1: it is plugged in already")
	refused("unplug net1", exitFailed, "unplug net1: ", "the tap is in use", "take the NIC from it, first")
	if err := nic.Close(); err != nil {
		t.Fatal(err)
	}
}

// A NIC that was plugged in is served by the next run as it was, though that is not told
// of it, until it is unplugged.
func TestPluggedSurvivesRestart(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	addNet1(t, pod)
	output := t.TempDir()
	common := podArgs(t, pod)
	start := func(args ...string) *podtest.Cmd {
		t.Helper()
		cmd := podtest.Command(t.Context(), nil, os.Args[0], slices.Concat([]string{"run", "-i", "eth0", "--output-dir", output, "--resolv-conf", "/dev/null"}, args, common)...)
		if err := startMain(cmd); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	must := func(args ...string) string {
		t.Helper()
		r := runCLI(t, "", append(args, common...)...)
		if r.code != exitDone {
			t.Fatalf("%v: %s", args, r.stderr)
		}
		return r.stdout
	}
	before := podtest.TakeSnapshot(t, pod.NS)
	cmd := start("--hotplug")
	podtest.WaitReleased(pod.NS, "tap-eth0")
	alone := podtest.TakeSnapshot(t, pod.NS)
	must("plug", "net1", "--mac", "52:54:00:00:00:01", "--model", "e1000e", "--hostname", "second", "--dns", "192.0.2.1", "--datapath", "bridge")
	podtest.WaitReleased(pod.NS, "tap-net1")
	with := podtest.TakeSnapshot(t, pod.NS)
	files := filesIn(t, output)
	for _, args := range [][]string{nil, {"--hotplug"}} {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		cmd = start(args...)
		if now := filesIn(t, output); now != files || !strings.Contains(files, "e1000e") {
			t.Errorf("after a restart the files are\n%s\nnot\n%s", now, files)
		}
		podtest.WaitReleased(pod.NS, "tap-eth0")
		podtest.WaitReleased(pod.NS, "tap-net1")
		if d := podtest.Diff(with, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after a restart:\n%s", d)
		}
		nic, err := podtest.StartGuest(t.Context(), pod.NS, "tap-net1", parseMAC(t, "52:54:00:00:00:01"))
		if err != nil {
			t.Fatal(err)
		}
		if lease, err := nic.Udhcpc(t.Context()); err != nil || lease["ip"] != "10.9.0.7" || lease["hostname"] != "second" || lease["dns"] != "192.0.2.1" || lease["router"] != "" {
			t.Errorf("the lease is %v, %v", lease, err)
		}
		if err := nic.Close(); err != nil {
			t.Fatal(err)
		}
	}
	must("unplug", "net1")
	if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after the unplug:\n%s", d)
	}
	if files := filesIn(t, output); strings.Contains(files, "tap-net1") {
		t.Errorf("after the unplug the files are\n%s", files)
	}
	must("plug", "net1", "--mac", "52:54:00:00:00:01")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	must("prepare") // which knows how net1 was plugged in
	must("restore")
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
	if left, err := filepath.Glob(filepath.Join(common[len(common)-1], "net1*")); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// A program that is killed while it plugs in or unplugs, at whatever moment, leaves what
// the next run finishes: net1 is served, or as the CNI left it.
func TestKilledWhilePlugging(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	addNet1(t, pod)
	common := podArgs(t, pod)
	start := func() *podtest.Cmd {
		t.Helper()
		cmd := podtest.Command(t.Context(), nil, os.Args[0], append([]string{"run", "-i", "eth0", "--hotplug", "--no-check", "--resolv-conf", "/dev/null"}, common...)...)
		if err := startMain(cmd); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	untouched := func() bool {
		return !strings.Contains(pod.Run(t, "ip", "-o", "link"), "-net1") && strings.Contains(pod.Run(t, "ip", "-o", "addr", "show", "net1"), "10.9.0.7/24")
	}
	ask := func(args ...string) result { return runCLI(t, "", append(args, common...)...) }
	for i := range 10 {
		cmd := start()
		verb := "plug"
		if i%2 == 1 {
			verb = "unplug"
		}
		if untouched() == (verb == "unplug") { // it is to be the other way round
			other := map[string]string{"plug": "unplug", "unplug": "plug"}[verb]
			if r := ask(other, "net1"); r.code != exitDone {
				t.Fatal(r.stderr)
			}
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			ask(verb, "net1") // it may not hear an answer
		}()
		time.Sleep(time.Duration(rand.IntN(25)) * time.Millisecond) // at any moment, which no event tells
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		<-done
		cmd = start()
		r := ask("wait", "--for", "network", "--timeout", "60s", "-o", "json")
		if r.code != exitDone {
			t.Errorf("%s: %s", verb, r.stderr)
		}
		served := strings.Contains(r.stdout, `"interface": "net1"`)
		if served == untouched() {
			t.Errorf("%s: net1 is served: %v, and not prepared: %v", verb, served, untouched())
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func filesIn(t *testing.T, dir string) string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

func parseMAC(t *testing.T, text string) net.HardwareAddr {
	t.Helper()
	mac, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}
