// Package inside is what runs in a virtual machine with another kernel: its tests
// use the built program there as on this machine. test/kernels boots the kernels,
// with the program and this package's tests, and tells what came of them.
package inside

import (
	"context"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/launchtest"
)

var choices = regexp.MustCompile(`want (.+) \(see`)

// datapaths are those that the program has. Outside of the virtual machine the test skips.
func datapaths(t *testing.T) []string {
	t.Helper()
	if os.Getenv("VLN_TEST_KERNELS") != "inside" {
		t.Skip("runs in a virtual machine: run make test-kernels")
	}
	_, err := podtest.New(t).Output(t.Context(), podtest.Built(t, "virt-launcher-net"), "plan", "--datapath", "no-such")
	if err == nil {
		t.Fatal("there is a datapath no-such")
	}
	named := choices.FindStringSubmatch(err.Error())
	if named == nil {
		t.Fatalf("no datapath is named in %v", err)
	}
	return strings.Split(named[1], " or ")
}

// eachDatapath runs a test of each datapath.
func eachDatapath(t *testing.T, test func(t *testing.T, datapath string)) {
	for _, datapath := range datapaths(t) {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			test(t, datapath)
		})
	}
}

// vm is a pod with the program and, once it is started, a guest.
type vm struct {
	*launchtest.Program
	pod    *podtest.Pod
	guest  *podtest.Guest
	before string  // the pod as the CNI left it
	wire   network // the other end of the pod interface
}

// redirect is the datapath that leaves the pod its network.
const redirect = "redirect"

func newVM(t *testing.T, pod *podtest.Pod, datapath string) *vm {
	t.Helper()
	if datapath == redirect && olderThan(t, 5, 16) {
		// No egress hook: by these the pod's connections are told from the guest's.
		if err := pod.Sysctl("net/ipv4/ip_local_port_range", "28672 32767"); err != nil {
			t.Fatal(err)
		}
	}
	v := &vm{Program: launchtest.NewProgram(t, pod), pod: pod, before: podtest.TakeSnapshot(t, pod.NS), wire: network{pod.Node, pod.NodeLink}}
	v.Datapath = datapath
	return v
}

// plugGuest has a guest open the tap, until restore or the end of all tests.
func (v *vm) plugGuest(t *testing.T) {
	t.Helper()
	var err error
	if v.guest, err = podtest.StartGuest(t.Context(), v.pod.NS, "tap-"+v.pod.Interface, v.pod.MAC); err != nil {
		t.Fatal(err)
	}
}

// restore ends the program and the guest, and fails the test unless the pod is then as
// the CNI left it.
func (v *vm) restore(t *testing.T) {
	t.Helper()
	if err := v.Stop(syscall.SIGTERM); err != nil {
		t.Errorf("virt-launcher-net run ended with: %v", err)
	}
	if err := v.guest.Close(); err != nil {
		t.Error(err)
	}
	v.Run(t, "restore")
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	if err := podtest.WaitCarrier(ctx, v.pod.NS, v.pod.Interface); err != nil {
		t.Error(err)
	}
	v.unchanged(t, "restore")
}

// unchanged fails the test unless the pod is as the CNI left it.
func (v *vm) unchanged(t *testing.T, after string) {
	t.Helper()
	if d := podtest.Diff(v.before, podtest.TakeSnapshot(t, v.pod.NS)); d != "" {
		t.Errorf("after %s:\n%s", after, d)
	}
}

// lease has the guest take the addresses of the pod.
func (v *vm) lease(t *testing.T) {
	t.Helper()
	if v.pod.IPv4.IsValid() {
		given, err := v.guest.Udhcpc(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if given["ip"] != v.pod.IPv4.Addr().String() {
			t.Errorf("the guest has %s, the pod had %s", given["ip"], v.pod.IPv4)
		}
	}
	if v.pod.IPv6.IsValid() {
		address, err := v.guest.Dhclient6(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if address != v.pod.IPv6.Addr() {
			t.Errorf("the guest has %s, the pod had %s", address, v.pod.IPv6)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := podtest.WaitRouter(ctx, v.guest.NS); err != nil {
			t.Fatal(err)
		}
		if err := podtest.WaitSettled(ctx, v.guest.NS); err != nil {
			t.Fatal(err)
		}
	}
}

// path is what a guest's traffic goes between.
type path struct{ guest, outside netip.Addr }

// paths are one for each family that the pod has.
func (v *vm) paths() []path {
	var out []path
	if v.pod.IPv4.IsValid() {
		out = append(out, path{v.pod.IPv4.Addr(), podtest.OutsideIP})
	}
	if v.pod.IPv6.IsValid() {
		out = append(out, path{v.pod.IPv6.Addr(), podtest.OutsideIPv6})
	}
	return out
}

// reach has guest and outside ping each other, and exchange bytes by TCP that either
// began.
func (v *vm) reach(t *testing.T) {
	t.Helper()
	const size = 64 << 10
	guest, outside := v.guest.NS, v.pod.Outside
	for _, path := range v.paths() {
		guest.Run(t, "ping", "-c1", "-W20", path.outside.String())
		outside.Run(t, "ping", "-c1", "-W20", path.guest.String())
		if err := podtest.Exchange(t.Context(), guest, outside, path.outside, size); err != nil {
			t.Errorf("guest to %s: %v", path.outside, err)
		}
		if err := podtest.Exchange(t.Context(), outside, guest, path.guest, size); err != nil {
			t.Errorf("outside to %s: %v", path.guest, err)
		}
	}
}
