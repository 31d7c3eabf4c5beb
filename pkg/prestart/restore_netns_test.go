package prestart_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// closed closes a session that a test has ended.
func closed(t *testing.T, session *prestart.Session) {
	t.Helper()
	if err := session.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A record that is left of an interface that is not prepared, as where a process was killed
// before the first change, does not keep a pod from being prepared that has got more since.
func TestRecordLeftOfChangedPod(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.StateDir, "eth0.json")
	record, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "route add 10.99.0.0/24 via "+pod.Gateway.String())
	before := podtest.TakeSnapshot(t, pod.NS)
	if err := os.WriteFile(path, record, 0o600); err != nil {
		t.Fatal(err)
	}
	prepared, err := h.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if routes := fmt.Sprint(prepared[0].IPv4.Routes); !strings.Contains(routes, "10.99.0.0/24") {
		t.Errorf("the VM gets the routes %s", routes)
	}
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// A VM keeps its network unless somebody insists; a check of ours is no VM, and a
// server no reason to refuse.
func TestRestoreRefusesWhileAVMHasTheTap(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	var log podtest.Buffer
	h.Log = slog.New(slog.NewTextHandler(&log, nil))
	session, err := h.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	prepared := podtest.TakeSnapshot(t, pod.NS)
	if _, err := h.Restore(t.Context()); !errors.Is(err, check.ErrTapInUse) || !strings.Contains(err.Error(), "tap-eth0") {
		t.Errorf("restore with a VM on the tap: %v", err)
	}
	if strings.Contains(log.String(), "a server still runs") {
		t.Errorf("a refused restore warns:\n%s", log.String())
	}
	if d := podtest.Diff(prepared, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("a refused restore changed:\n%s", d)
	}
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
	h.Force = true
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "a server still runs") {
		t.Errorf("nothing was said of the server:\n%s", log.String())
	}
	_ = session.Close(t.Context()) // it says that the tap is gone
	if err := guest.Close(); err != nil {
		t.Error(err)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// A check that has the tap open is waited for.
func TestRestoreWaitsForACheck(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	checked := make(chan error, 1)
	go func() {
		_, err := h.Check(ctx) // nobody serves, so it asks for a while
		checked <- err
	}()
	for !strings.Contains(pod.Run(t, "ip", "link", "show", "tap-eth0"), "LOWER_UP") {
		time.Sleep(time.Millisecond)
	}
	time.AfterFunc(200*time.Millisecond, cancel)
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-checked; err == nil {
		t.Error("the check succeeded")
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// What a session put together it takes apart at its end, once the VM has left.
func TestRestoreAfter(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.RestoreAfter = true
	for _, hasVM := range []bool{false, true} {
		session, err := h.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if hasVM {
			guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(300*time.Millisecond, func() { _ = guest.Close() })
		}
		closed(t, session)
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("after the session:\n%s", d)
		}
	}
	early := h
	h.Elevate = func() error { // nobody may serve what is about to be taken apart
		other, err := early.Run(t.Context())
		if !isServed(err) {
			t.Errorf("before the pod is restored another session runs: %v", err)
		}
		if err == nil {
			return other.Close(t.Context())
		}
		return nil
	}
	session, err := h.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closed(t, session)
	if session, err = h.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := session.Close(ctx); !errors.Is(err, check.ErrTapInUse) || !strings.Contains(err.Error(), "stays prepared") {
		t.Errorf("with a VM that stays: %v", err)
	}
	pod.Run(t, "ip", "link", "show", "tap-eth0")
}

// Another process that is at work on the pod, as long as its CNI takes, is not waited for
// without end.
func TestRestoreBehindAnother(t *testing.T) {
	t.Parallel()
	h := newHook(t, podtest.NewPod(t, podtest.Flannel))
	h.RestoreAfter, h.SkipCheck = true, true
	session := run(t, h)
	log := &podtest.Buffer{}
	another := h
	another.Interfaces, another.Log = []string{"net7"}, slog.New(slog.NewTextHandler(log, nil))
	working, end := context.WithCancel(t.Context())
	defer end()
	go func() { _, _ = another.Prepare(working) }()
	log.Wait(t, "waiting for the CNI")
	h.Timeout = 10 * time.Millisecond
	patient, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	_, err := h.Restore(patient)
	if timeout, ok := errors.AsType[*prestart.TimeoutError](err); !ok || timeout.After != h.Timeout {
		t.Errorf("restore says: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- session.Close(context.WithoutCancel(t.Context())) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "the pod stays prepared") || !strings.Contains(err.Error(), "is using it") {
			t.Errorf("the session ends with: %v", err)
		}
	case <-time.After(podtest.Patience):
		t.Error("the session does not end")
	}
	end()
	h.Timeout = 0
	if names, err := h.Restore(t.Context()); err != nil || !slices.Equal(names, []string{"eth0"}) {
		t.Errorf("once the other has ended: %v, %v", names, err)
	}
}

// What a session that fails takes apart nobody else may serve meanwhile.
func TestFailedRunKeepsOthersOut(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	pod.Node.IP(t, "addr flush to "+pod.Gateway.String())
	before := podtest.TakeSnapshot(t, pod.NS)
	h := newHook(t, pod)
	h.RestoreAfter = true
	other, asked := h, false
	h.Elevate = func() error {
		asked = true
		if _, err := other.Run(t.Context()); !isServed(err) {
			t.Errorf("before the pod is restored another session: %v", err)
		}
		return nil
	}
	if _, err := h.Run(t.Context()); !isCheckError(err, "eth0") || !asked {
		t.Errorf("without a gateway it says %v, and restored: %v", err, asked)
	}
	if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after the session:\n%s", d)
	}
}

func isServed(err error) bool {
	_, ok := errors.AsType[*prestart.ServedError](err)
	return ok
}

// withNet1 is a pod with a second interface, to which nobody answers.
func withNet1(t *testing.T, more ...string) *podtest.Pod {
	t.Helper()
	pod := podtest.NewPod(t, podtest.BridgeCNI)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path())
	pod.Node.IP(t, "link set net1 up") // first, so that its routes do not begin without a carrier
	pod.IP(t, append([]string{"link set net1 up", "addr add 10.9.0.7/24 dev net1"}, more...)...)
	return pod
}

// factsOf is what a pod with several interfaces has: not in which order, nor what a
// check that had a tap open left behind, which a snapshot tells.
func factsOf(t *testing.T, pod *podtest.Pod) string {
	t.Helper()
	facts := pod.Run(t, "ls", "/proc/sys/net/ipv4/conf")
	for _, command := range []string{"ip -4 -o addr", "ip -4 route", "nft list tables"} {
		words := strings.Fields(command)
		facts += pod.Run(t, words[0], words[1:]...)
	}
	return strings.ReplaceAll(facts, "linkdown ", "") // it follows a tap's carrier a little later
}

// A call that fails takes back what it prepared, and nothing that was before.
func TestFailureTakesBackItsOwnOnly(t *testing.T) {
	t.Parallel()
	pod := withNet1(t, "route add 10.10.0.0/16 via 10.9.0.1") // who does not answer
	h := newHook(t, pod)
	h.OutputDir = filepath.Join(t.TempDir(), "nics")
	h.Interfaces = []string{"eth0"}
	before := factsOf(t, pod)
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	prepared, nics := factsOf(t, pod), readIn(t, h.OutputDir, prestart.NICsFile)
	same := func(what string) {
		t.Helper()
		if d := podtest.Diff(prepared, factsOf(t, pod)); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
		if now := readIn(t, h.OutputDir, prestart.NICsFile); now != nics {
			t.Errorf("%s: the NICs are %s, were %s", what, now, nics)
		}
		if left, _ := filepath.Glob(filepath.Join(h.StateDir, "*.json")); len(left) > 1 || len(left) == 1 && filepath.Base(left[0]) != "eth0.json" {
			t.Errorf("%s: records are %v", what, left)
		}
	}
	for _, names := range [][]string{{"net1"}, {"eth0", "net1"}} {
		h.Interfaces = names
		if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "10.9.0.1") {
			t.Fatalf("run of %v with a gateway that does not answer: %v", names, err)
		}
		same("after a failed run of " + strings.Join(names, " and "))
	}

	// A directory where the file should be can't be replaced by it.
	h.Interfaces = []string{"net1"}
	if err := os.Remove(filepath.Join(h.OutputDir, prestart.QEMUFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(h.OutputDir, prestart.QEMUFile, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Prepare(t.Context()); err == nil {
		t.Fatal("prepare wrote a file over a directory")
	}
	same("after a prepare that could not write")
	h.Interfaces, h.OutputDir = nil, ""
	if _, err := h.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(before, factsOf(t, pod)); d != "" {
		t.Errorf("after restore:\n%s", d)
	}
}

// leased is what a guest on the tap is told.
func leased(t *testing.T, pod *podtest.Pod, network string, session *prestart.Session) map[string]string {
	t.Helper()
	for _, n := range session.Interfaces() {
		if n.Interface != network {
			continue
		}
		guest, err := podtest.StartGuest(t.Context(), pod.NS, n.Tap, n.MAC.HardwareAddr())
		if err != nil {
			t.Fatal(err)
		}
		lease, err := guest.Udhcpc(t.Context())
		if err := errors.Join(err, guest.Close()); err != nil {
			t.Fatal(err)
		}
		return lease
	}
	t.Fatalf("%s is not served", network)
	return nil
}

// What a VM is told does not change when its server is started anew, whichever of
// the verbs starts it and whatever it names.
func TestOneLeasePerVM(t *testing.T) {
	t.Parallel()
	for _, shape := range podtest.Shapes() {
		if shape == podtest.L2 || shape == podtest.AWSIPv6 { // nothing is leased by eth0
			continue
		}
		t.Run(string(shape), func(t *testing.T) {
			t.Parallel()
			oneLease(t, podtest.NewPod(t, shape), "eth0")
		})
	}
	for name, pod := range map[string]func(*testing.T) *podtest.Pod{
		"a default route each": func(t *testing.T) *podtest.Pod {
			return withNet1(t, "route add default via 10.9.0.1 metric 50")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := pod(t)
			h := newHook(t, pod)
			h.Interfaces = []string{"eth0"}
			if _, err := h.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			oneLeaseOf(t, pod, h, "net1")
		})
	}
}

func oneLease(t *testing.T, pod *podtest.Pod, name string) {
	t.Helper()
	oneLeaseOf(t, pod, newHook(t, pod), name)
}

// recorded serves what the hook's record has.
func recorded(h prestart.Hook) func(context.Context) (*prestart.Session, error) {
	return func(ctx context.Context) (*prestart.Session, error) { return h.Serve(ctx) }
}

func oneLeaseOf(t *testing.T, pod *podtest.Pod, h prestart.Hook, name string) {
	t.Helper()
	h.SkipCheck = true
	named, all := h, h
	named.Interfaces, all.Interfaces = []string{name}, nil
	var want map[string]string
	for i, start := range []func(context.Context) (*prestart.Session, error){named.Run, recorded(named), recorded(all), named.Run} {
		session, err := start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := leased(t, pod, name, session)
		closed(t, session)
		if want == nil {
			want = got
		}
		if !maps.Equal(got, want) {
			t.Errorf("the guest is told by the server %d\n%v\nand was by the first\n%v", i+1, got, want)
		}
	}
}

// Whatever is prepared or repaired later, the interface that was prepared first
// stays the primary one.
func TestPrimaryStays(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string][][]string{
		"together, then one by one":  {{"net1", "eth0"}, {"eth0"}, {"net1"}},
		"one by one":                 {{"net1"}, {"eth0"}, {"net1"}, {"eth0", "net1"}},
		"a repair between the calls": {{"net1"}, {"eth0"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := withNet1(t)
			h := newHook(t, pod)
			var log bytes.Buffer
			h.Log = slog.New(slog.NewTextHandler(&log, nil))
			for _, names := range calls {
				h.Interfaces = names
				if _, err := h.Prepare(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{"br-eth0", "br-net1"} {
					_, _ = pod.Output(t.Context(), "ip", "link", "del", name)
				}
			}
			h.Interfaces = []string{"eth0", "net1"}
			networks, err := h.Prepare(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			h.Interfaces = nil
			status, err := statusOf(t, h)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for i, n := range status.Interfaces {
				names = append(names, n.Name, networks[i].Interface)
			}
			if want := []string{"net1", "net1", "eth0", "eth0"}; !slices.Equal(names, want) {
				t.Errorf("the order is %v, want %v", names, want)
			}
			if !strings.Contains(log.String(), "primary=net1 named=eth0") {
				t.Errorf("nothing was said of it:\n%s", &log)
			}
		})
	}
}
