package prestart_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// A launcher hears from its session what happens to the lease and whether the
// network is there, without asking the control socket.
func TestSessionEvents(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	session := run(t, newHook(t, pod))
	events := session.Events(t.Context())
	next := func() prestart.Event {
		t.Helper()
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("no more events")
			}
			return e
		case <-time.After(time.Minute):
			t.Fatal("no event")
		}
		panic("unreachable")
	}
	if err := session.WaitLease(t.Context(), "eth7"); !isNotFound(err, "eth7") {
		t.Errorf("lease of an interface that is not there: %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := session.WaitLease(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lease of a guest that has not asked: %v", err)
	}

	guest := podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := session.WaitLease(t.Context(), "eth0"); err != nil {
		t.Fatal(err)
	}
	offers := 0
	for _, want := range []lease.EventType{lease.EventOffered, lease.EventBound} {
		e := next()
		for ; want == lease.EventBound && e.Lease != nil && e.Lease.Type == lease.EventOffered && offers < 10; offers++ {
			e = next() // a client that is answered late asks again
		}
		if e.Lease == nil || e.Lease.Type != want || e.Interface != "eth0" || e.Protocol != prestart.DHCPv4 || !e.Ready || e.Lease.Address.Addr() != pod.IPv4.Addr() {
			t.Errorf("got %+v, want %s", e, want)
		}
	}
	link := wiringOf(t, "eth0").link
	pod.IP(t, "link set "+link+" down")
	if e := next(); e.Lease != nil || e.Ready || e.At.IsZero() {
		t.Errorf("%s is down, and the event is %+v", link, e)
	}

	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range events { //nolint:revive // until it is closed
	}
}

// Who waits for a lease learns that the NIC is not served any more: whichever end he hears of
// first, and though the guest had its lease.
func TestWaitLeaseOfDeletedTap(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	for _, isBound := range []bool{false, true} {
		session, err := h.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		const askers = 20
		heard := make(chan error)
		ask := func() {
			for range askers {
				go func() { heard <- session.WaitLease(context.Background()) }()
			}
		}
		if isBound {
			guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", pod.MAC)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := guest.Udhcpc(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(session.WaitLease(t.Context()), guest.Close()); err != nil {
				t.Fatal(err)
			}
		} else {
			ask()
		}
		pod.IP(t, "link del tap-eth0")
		_ = session.Wait(t.Context()) // it says the same
		if isBound {
			ask()
		}
		for range askers {
			if err := <-heard; !isServeError(err, "eth0") {
				t.Errorf("bound before: %v, who waits hears: %v", isBound, err)
			}
		}
		_ = session.Close(t.Context()) // likewise
	}
	session := run(t, h)
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(session.WaitLease(t.Context()), session.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := session.WaitLease(t.Context()); !errors.Is(err, prestart.ErrSessionClosed) {
		t.Errorf("once the session is closed: %v", err)
	}
}

func isServeError(err error, name string) bool {
	e, ok := errors.AsType[*prestart.ServeError](err)
	return ok && e.Interface == name
}

func isNotFound(err error, name string) bool {
	e, ok := errors.AsType[*discover.NotFoundError](err)
	return ok && e.Interface == name
}

// The session's NICs are what QEMU gets, born in the pod's namespace.
func TestNICs(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	h.Model = "e1000e"
	before, err := h.NICs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	session := run(t, h)
	after, err := h.NICs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, nics := range [][]domain.NIC{before, after} {
		if !slices.EqualFunc(nics, session.NICs(), func(a, b domain.NIC) bool { return a == b }) || nics[0].Shared != (podtest.Datapath(t) == redirect) {
			t.Errorf("the hook says %+v, the session %+v", nics, session.NICs())
		}
	}
	args, err := domain.QEMUArgs(session.NICs()...)
	if err != nil {
		t.Fatal(err)
	}
	want := "ifname=tap-eth0"
	if text := strings.Join(args, " "); !strings.Contains(text, want) || !strings.Contains(text, "e1000e") || !strings.Contains(text, pod.MAC.String()) {
		t.Errorf("QEMU gets %s", text)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	args = append([]string{"-S", "-machine", "q35,accel=tcg", "-m", "32", "-nodefaults", "-display", "none", "-daemonize", "-pidfile", pidFile}, args...)
	var out []byte
	if err := h.InNetns(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "qemu-system-x86_64", args...).CombinedOutput()
		return err
	}); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { killQEMU(t, pidFile) })
	status, err := statusOf(t, h)
	if err != nil {
		t.Fatal(err)
	}
	if links := status.Interfaces[0].Links; !slices.ContainsFunc(links, func(l prestart.LinkStatus) bool { return l.Name == "tap-eth0" && l.Carrier }) {
		t.Errorf("QEMU is not on the tap: %+v", links)
	}

	waiting := make(chan error)
	go func() { waiting <- session.WaitLease(context.Background()) }()
	go func() { waiting <- session.Wait(context.Background()) }()
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status := session.Status(); status.Ready || status.NotReady() != "the network is not served any more: the session is closed" {
		t.Errorf("of a session that is closed: %q, %+v", status.NotReady(), status)
	}
	for range 2 {
		if err := <-waiting; !errors.Is(err, prestart.ErrSessionClosed) || errors.Is(err, context.Canceled) {
			t.Errorf("who waited until the session closed got %v", err)
		}
	}
	for range 100 { // whichever end is noticed first, the session's or the NIC's
		if err := session.WaitLease(context.Background()); !errors.Is(err, prestart.ErrSessionClosed) {
			t.Fatalf("who waits once the session is closed gets %v", err)
		}
	}
	if status := session.Status(); status.Ready || status.NotReady() == "" {
		t.Errorf("a session that is closed is ready: %+v", status)
	}
}

func killQEMU(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}
