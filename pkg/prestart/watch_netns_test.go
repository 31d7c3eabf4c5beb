package prestart_test

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// Whoever changes what the VM's packets pass through is noticed, by the log, by
// those who wait and by status; and so is who puts it right.
func TestDamagedPodIsNotReady(t *testing.T) {
	t.Parallel()
	for name, d := range wiringOf(t, "eth0").damages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewPod(t, cmp.Or(d.shape, podtest.Calico))
			h := newHook(t, pod)
			said := make(chan string, 256)
			h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
			session := run(t, h)
			podtest.NewGuest(t, pod.NS, session.Interfaces()[0].Tap, pod.MAC)
			if err := waitFor(t, h, control.ForNetwork, time.Minute); err != nil {
				t.Fatal(err)
			}
			for len(said) > 0 {
				if line := <-said; strings.Contains(line, "not as planned") {
					t.Error("before anything happened it was said: ", line)
				}
			}

			d.do(t, pod)
			what, _, _ := strings.Cut(d.says[0], " is ")
			if strings.Contains(what, " ") {
				what = strconv.Quote(what)
			}
			until(t, said, "not as planned\" interface=eth0 what="+what+" is=")
			err := waitFor(t, h, control.ForNetwork, 4*time.Second)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("wait says: %v", err)
			}
			status, statusErr := statusOf(t, h)
			if statusErr != nil || !status.Server.Alive || status.Server.Ready || len(session.Status().Of("eth0").Differences) != len(status.Interfaces[0].Differences) {
				t.Errorf("status is %+v, %v", status, statusErr)
			}
			for _, want := range d.says {
				if !strings.Contains(err.Error(), want) || !strings.Contains(session.Status().NotReady(), want) {
					t.Errorf("wait says: %v\nwant %q in it", err, want)
				}
			}

			if d.heals != nil {
				d.heals(t, pod)
			} else if _, err := h.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			until(t, said, "as planned again")
			if err := waitFor(t, h, control.ForNetwork, time.Minute); err != nil {
				t.Error(err)
			}
			if status := session.Status(); !status.Ready || status.NotReady() != "" {
				t.Errorf("status is %+v", status)
			}
		})
	}
}

// A pod interface that is gone can't be had again.
func TestUplinkGoneForGood(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	h := newHook(t, pod)
	session := run(t, h)
	uplink := wiringOf(t, "eth0").uplink
	pod.IP(t, "link del "+uplink, "link add "+uplink+" type veth peer name else")
	err := waitFor(t, h, control.ForNetwork, 10*time.Second)
	gone := " is another link"
	if uplink == "eth0" { // the one with the name is nobody's
		gone = " is missing, which should be the pod's interface"
	}
	if err == nil || !strings.Contains(err.Error(), uplink+gone) || !strings.Contains(err.Error(), "recreate the pod") {
		t.Errorf("wait says: %v", err)
	}
	pod.IP(t, "link del "+uplink)
	if err := waitFor(t, h, control.ForNetwork, time.Second); err == nil {
		t.Error("wait is content")
	}
	if status := session.Status(); status.Ready || len(status.Of("eth0").Differences) == 0 || status.Of("eth0").Differences[0].What != uplink || status.StartSeconds == 0 {
		t.Errorf("status is %+v", status)
	}
}

// A VM that runs goes on being served by its other NICs, also by the next session, when one
// of its interfaces is gone. None is started with less than it was to have.
func TestServedBesideGone(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNet1(t, pod)
	h := newHook(t, pod)
	h.Interfaces = []string{"eth0", "net1"}
	if err := run(t, h).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	other, err := podtest.OpenTap(pod.NS, "tap-net1", 1)
	if err != nil {
		t.Fatal(err)
	}
	uplink := wiringOf(t, "net1").uplink
	pod.IP(t, "link del "+uplink)

	session := run(t, h)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Error(err)
	}
	status := session.Status()
	if found := status.Of("net1").Differences; status.Ready || len(found) != 1 || found[0].What != uplink || len(status.Of("eth0").Differences) > 0 {
		t.Errorf("status is %+v", status)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	otherwise := h
	otherwise.Network.MTU = 1300
	if _, err := otherwise.Run(t.Context()); !errors.As(err, new(*prepare.OptionsError)) {
		t.Errorf("with other options: %v", err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	podtest.WaitReleased(pod.NS, "tap-net1")
	if _, err := h.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "recreate the pod") {
		t.Errorf("without the VM: %v", err)
	}
}

// asker asks the hook's server.
func asker(h prestart.Hook) control.Client {
	return control.Client{Netns: h.Netns, StateDir: h.StateDir}
}

// statusOf is what Status says once the server answers: on a busy machine it may take
// longer than Status waits.
func statusOf(t *testing.T, h prestart.Hook) (prestart.Status, error) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		status, err := h.Status(t.Context())
		if err != nil || !strings.Contains(status.Server.Error, "does not answer") || time.Now().After(deadline) {
			return status, err
		}
	}
}

// waitFor waits as long. A server that did not say in time what is missing, as a busy
// machine may have it, is asked again.
func waitFor(t *testing.T, h prestart.Hook, condition string, timeout time.Duration) (err error) {
	t.Helper()
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		_, err = asker(h).Wait(ctx, condition)
		cancel()
		if !errors.Is(err, control.ErrNoAnswer) {
			break
		}
	}
	return err
}

// until reads the log until a line has the text.
func until(t *testing.T, said <-chan string, want string) {
	t.Helper()
	var lines strings.Builder
	late := time.After(time.Minute)
	for {
		select {
		case line := <-said:
			lines.WriteString(line)
			if strings.Contains(line, want) {
				return
			}
		case <-late:
			t.Fatalf("nothing says %q:\n%s", want, lines.String())
		}
	}
}

// lineWriter sends what is written, as slog does a line at a time.
type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

// A guest that comes, asks, goes and comes again is nothing that differs, in no
// moment of it.
func TestFlappingGuestStaysReady(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	said := make(chan string, 256)
	h.Log = slog.New(slog.NewTextHandler(lineWriter(said), nil))
	session := run(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	looked := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			if why := session.Status().NotReady(); why != "" {
				t.Error(why)
				break
			}
		}
		looked <- n
	}()
	for i := range 6 {
		guest, err := podtest.StartGuest(t.Context(), pod.NS, session.Interfaces()[0].Tap, pod.MAC)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			if _, err := guest.Udhcpc(t.Context()); err != nil {
				t.Error(err)
			}
			guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
		}
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
	}
	cancel()
	if n := <-looked; n < 6 {
		t.Errorf("looked %d times at 6 guests", n)
	}
	for len(said) > 0 {
		if line := <-said; strings.Contains(line, "not as planned") {
			t.Error("it was said: ", line)
		}
	}
}

// A sysctl has no events: who asks is told of it, and who waits for it to be put
// right does not wait in vain.
func TestSysctlNotAsPlanned(t *testing.T) {
	t.Parallel()
	onlyWithSwitch(t)
	pod := podtest.NewPod(t, podtest.Flannel)
	h := newHook(t, pod)
	session := run(t, h)
	set := func(value string) {
		t.Helper()
		if err := pod.Sysctl(podtest.SwitchFilter+"iptables", value); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	want := "eth0: sysctl " + strings.ReplaceAll(podtest.SwitchFilter, "/", ".") + "iptables is 1, not 0: run virt-launcher-net prepare"
	if why := session.Status().NotReady(); !strings.Contains(why, want) {
		t.Errorf("status says %q", why)
	}
	status, err := statusOf(t, h)
	if err != nil || len(status.Interfaces[0].Differences) != 1 {
		t.Errorf("status is %+v, %v", status, err)
	}
	waited := make(chan error)
	go func() { waited <- waitFor(t, h, control.ForNetwork, time.Minute) }()
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
}

// Of a pod with several interfaces it is said which one is not as planned, and
// which one has no lease.
func TestSecondInterfaceNotAsPlanned(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Calico)
	pod.IP(t, "link add net1 type veth peer name net1 netns "+pod.Node.Path(), "link set net1 up", "addr add 10.99.0.2/24 dev net1")
	pod.Node.IP(t, "link set net1 up")
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0", "net1"}, true
	run(t, h)
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	wait := func(condition string) {
		unlessBusy(t, func() bool {
			err = waitFor(t, h, condition, 100*time.Millisecond)
			return !errors.Is(err, control.ErrNoAnswer)
		})
	}
	wait(control.ForLease)
	if err == nil || !strings.Contains(err.Error(), ": net1: the guest on tap-net1 has not got 10.99.0.2/24") || strings.Contains(err.Error(), "eth0") {
		t.Errorf("wait says: %v", err)
	}
	pod.Node.IP(t, "link set net1 down")
	wait(control.ForNetwork)
	if err == nil || !strings.Contains(err.Error(), "planned: net1: "+wiringOf(t, "net1").uplink+" is without carrier") || strings.Contains(err.Error(), "eth0") {
		t.Errorf("wait says: %v", err)
	}
}
