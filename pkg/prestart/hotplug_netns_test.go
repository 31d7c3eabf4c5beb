package prestart_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// addNets gives the pod the interfaces net1 to netN without a gateway to ask.
func addNets(t *testing.T, pod *podtest.Pod, n int) (names []string) {
	t.Helper()
	for i := range n {
		name := fmt.Sprintf("net%d", i+1)
		pod.IP(t, fmt.Sprintf("link add %s type veth peer name %s netns %s", name, name, pod.Node.Path()))
		pod.Run(t, "sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1") // the order of its routes would not come back
		pod.IP(t, "link set "+name+" up", fmt.Sprintf("addr add 10.9.%d.7/24 dev %s", i+1, name))
		pod.Node.IP(t, "link set "+name+" up")
		names = append(names, name)
	}
	return names
}

// hotplugHook is for a session that plugs for who asks.
func hotplugHook(t *testing.T, pod *podtest.Pod) prestart.Hook {
	t.Helper()
	h := newHook(t, pod)
	h.Interfaces, h.Timeout, h.OutputDir, h.Hotplug = []string{"eth0"}, 10*time.Second, t.TempDir(), &prestart.Hotplug{}
	return h
}

// Many who ask at once are served one after the other, and each interface is plugged in
// once.
func TestPlugsAtOnce(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	names := addNets(t, pod, 4)
	h := hotplugHook(t, pod)
	session := run(t, h)
	alone := podtest.TakeSnapshot(t, pod.NS)
	for range 3 {
		var asking sync.WaitGroup
		var mu sync.Mutex
		plugged := map[string]int{}
		for _, name := range slices.Concat(names, names, names) {
			asking.Go(func() {
				p, err := h.Plug(t.Context(), prestart.PlugRequest{Interface: name})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && p.Interface.Interface == name:
					plugged[name]++
				case !errors.Is(err, prestart.ErrPlugged):
					t.Errorf("plug %s: %+v, %v", name, p, err)
				}
			})
		}
		asking.Wait()
		for _, name := range names {
			if plugged[name] != 1 {
				t.Errorf("%s is plugged in %d times", name, plugged[name])
			}
		}
		if s := session.Status(); !s.Ready || len(s.Interfaces) != 5 {
			t.Errorf("the status is %+v", s)
		}
		for _, name := range names {
			asking.Go(func() {
				if err := h.Unplug(t.Context(), prestart.PlugRequest{Interface: name}); err != nil {
					t.Error(err)
				}
			})
		}
		asking.Wait()
		if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Fatalf("after all are unplugged:\n%s", d)
		}
	}
}

// Who gives up while the interface is waited for gets nothing, and is in nobody's way.
func TestPlugGivenUp(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	h := hotplugHook(t, pod)
	run(t, h)
	alone := podtest.TakeSnapshot(t, pod.NS)
	for _, late := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := h.Plug(ctx, prestart.PlugRequest{Interface: "net1", Timeout: time.Minute})
		cancel()
		if !errors.Is(err, control.ErrNoAnswer) {
			t.Errorf("who gives up hears %v", err)
		}
		if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("who gave up left:\n%s", d)
		}
		waits := 2 * time.Second
		if late {
			addNet1(t, pod)
			waits = podtest.Patience
		}
		_, err = h.Plug(t.Context(), prestart.PlugRequest{Interface: "net1", Timeout: waits})
		if missing := err != nil && strings.Contains(err.Error(), "net1"); missing == late {
			t.Errorf("the next one hears %v", err)
		}
	}
}

// Who changes the VM's NICs while another waits for the CNI waits no longer than his context.
func TestChangeBehindPlug(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0"}, true
	log := &podtest.Buffer{}
	h.Log = slog.New(slog.NewTextHandler(log, nil))
	session := run(t, h)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error)
	go func() {
		_, err := session.Plug(t.Context(), "net7", prestart.InterfaceOptions{})
		waiting <- err
	}()
	log.Wait(t, "waiting for the CNI")
	for name, change := range map[string]func(context.Context) error{
		"unplug": func(ctx context.Context) error { return session.Unplug(ctx, "net1") },
		"plug": func(ctx context.Context) error {
			_, err := session.Plug(ctx, "net2", prestart.InterfaceOptions{})
			return err
		},
		"serve": func(ctx context.Context) error { return session.Add(ctx, "net2", prestart.InterfaceOptions{}) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- change(ctx) }()
		select {
		case err := <-done:
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), name+" net") || !strings.Contains(err.Error(), "another change") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(podtest.Patience):
			t.Errorf("%s waits although its context has ended", name)
		}
	}
	if n := session.NICs(); len(n) != 2 {
		t.Errorf("the NICs are %+v", n)
	}
	if err := session.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, prestart.ErrSessionClosed) {
		t.Errorf("who waits for the CNI hears %v", err)
	}
}

// What a launcher's options for who asks leave out is as in the Hook.
func TestPlugOptionsLeftOut(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := hotplugHook(t, pod)
	h.SkipCheck, h.Network.MTU = true, 1400
	h.Hotplug.Options = func(_ prestart.InterfaceOptions, asked map[string]json.RawMessage) (o prestart.InterfaceOptions, err error) {
		return o, json.Unmarshal(asked["model"], &o.Model)
	}
	run(t, h)
	p, err := h.Plug(t.Context(), prestart.PlugRequest{Interface: "net1", Options: map[string]json.RawMessage{"model": []byte(`"e1000e"`)}})
	if err != nil || p.Model != "e1000e" || p.MTU != 1400 || p.Datapath != h.Network.Datapath {
		t.Errorf("%+v, %v", p, err)
	}
}

// What was plugged in with options of its own is planned as it is prepared.
func TestPlanOfPlugged(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := newHook(t, pod)
	h.Interfaces, h.SkipCheck = []string{"eth0"}, true
	session := run(t, h)
	own := h.Network
	own.MTU = 1400
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{Network: &own}); err != nil {
		t.Fatal(err)
	}
	h.Interfaces = nil
	if _, err := h.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	plans, err := h.Plan(t.Context())
	if err != nil || len(plans) != 2 || plans[1].NIC().MTU != 1400 {
		t.Errorf("the plans are %+v, %v", plans, err)
	}
}

// A session that ends while an interface is plugged in, at whatever moment, leaves it
// as it was or whole.
func TestCloseDuringPlug(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	before := podtest.TakeSnapshot(t, pod.NS)
	h := hotplugHook(t, pod)
	h.SkipCheck = true
	for i := range 8 {
		h.RestoreAfter = i%2 == 0
		session, err := h.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		plugged := make(chan error)
		go func() {
			_, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{})
			plugged <- err
		}()
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond) // at any moment
		if err := session.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		err = <-plugged
		if err != nil && !errors.Is(err, prestart.ErrSessionClosed) {
			t.Errorf("plug: %v", err)
		}
		prepared := strings.Contains(pod.Run(t, "ip", "-o", "link"), "tap-net1")
		if want := err == nil && !h.RestoreAfter; prepared != want {
			t.Errorf("net1 is prepared: %v, plug said %v", prepared, err)
		}
		if _, err := (prestart.Hook{Netns: h.Netns, StateDir: h.StateDir}).Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := podtest.Diff(before, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Fatalf("after restore:\n%s", d)
		}
	}
}

// Where the disk of the state is full, at whatever moment, a plug is whole or not done,
// and an unplug is done.
func TestPlugOnFullDisk(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := hotplugHook(t, pod)
	h.SkipCheck = true
	mountSmall(t, h.StateDir)
	session := run(t, h)
	alone := podtest.TakeSnapshot(t, pod.NS)
	was := map[string]int{}
	for free := range 6 {
		fill(t, h.StateDir, free)
		if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
			was["not plugged"]++
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("with %d free pages: %v", free, err)
			}
			if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
				t.Errorf("with %d free pages, after %v:\n%s", free, err, d)
			}
			if left, err := filepath.Glob(filepath.Join(h.StateDir, "net1*")); err != nil || len(left) > 0 {
				t.Errorf("with %d free pages there are %v, %v", free, left, err)
			}
			continue
		}
		was["plugged"]++
		fill(t, h.StateDir, 0)
		if err := session.Unplug(t.Context(), "net1"); err != nil {
			t.Fatal(err)
		}
		if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Fatalf("after the unplug:\n%s", d)
		}
	}
	if was["plugged"] == 0 || was["not plugged"] == 0 {
		t.Errorf("it was %v", was)
	}
}

// Where the state directory has become read-only an unplug changes nothing: what says that the
// interface was plugged in would stay, and the next session would have it again.
func TestUnplugReadOnly(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := hotplugHook(t, pod)
	h.SkipCheck = true
	mountSmall(t, h.StateDir)
	session := run(t, h)
	alone := podtest.TakeSnapshot(t, pod.NS)
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{}); err != nil {
		t.Fatal(err)
	}
	plugged := podtest.TakeSnapshot(t, pod.NS)
	if err := unix.Mount("", h.StateDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := session.Unplug(t.Context(), "net1"); !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), h.StateDir) {
		t.Errorf("unplugged: %v", err)
	}
	if d := podtest.Diff(plugged, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("it is not as it was:\n%s", d)
	}
	if err := unix.Mount("", h.StateDir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if err := session.Unplug(t.Context(), "net1"); err != nil {
		t.Fatal(err)
	}
	if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
		t.Errorf("after the unplug:\n%s", d)
	}
	if left, err := filepath.Glob(filepath.Join(h.StateDir, "net1*")); err != nil || len(left) > 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// mountSmall makes a directory a file system of few pages, for all of the process.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	podtest.Mount(t, "none", dir, "tmpfs", "size=256k,mode=700")
}

// fill leaves so many pages free in the directory.
func fill(t *testing.T, dir string, free int) {
	t.Helper()
	path := filepath.Join(dir, ".full")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, (int(fs.Bfree)-free)*int(fs.Bsize)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What says that an interface was plugged in comes back with its record, though the state
// directory is deleted: the next session has it.
func TestPluggedStateDeleted(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := hotplugHook(t, pod)
	h.SkipCheck = true
	session, err := h.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{Model: "e1000e"}); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(podtest.Patience); ; { // the session writes what is missing meanwhile
		err := os.RemoveAll(h.StateDir)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOTEMPTY) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"eth0.json", "net1.json", "net1.plugged"} {
		for end := time.Now().Add(podtest.Patience); ; time.Sleep(10 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(h.StateDir, file)); err == nil || time.Now().After(end) {
				break
			}
		}
	}
	if err := session.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if nics := run(t, h).NICs(); len(nics) != 2 || nics[1].Interface != "net1" || nics[1].Model != "e1000e" {
		t.Errorf("the next session has %+v", nics)
	}
}

// An interface that the CNI takes away while it is plugged in can be unplugged, and the
// next session starts without it.
func TestPluggedInterfaceGone(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		for _, datapath := range prepare.Datapaths() {
			t.Run(fmt.Sprintf("%s named %v", datapath, named), func(t *testing.T) {
				t.Parallel()
				pod := podtest.NewPod(t, podtest.Flannel)
				h := hotplugHook(t, pod)
				h.SkipCheck = true
				session, err := h.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				alone := podtest.TakeSnapshot(t, pod.NS)
				without := func(when string) {
					t.Helper()
					if d := podtest.Diff(alone, podtest.TakeSnapshot(t, pod.NS)); d != "" {
						t.Errorf("%s:\n%s", when, d)
					}
					if left, err := filepath.Glob(filepath.Join(h.StateDir, "net1*")); err != nil || len(left) > 0 {
						t.Errorf("%s there are %v, %v", when, left, err)
					}
				}
				loseNet1 := func() {
					t.Helper()
					addNets(t, pod, 1)
					if _, err := session.Plug(t.Context(), "net1", prestart.InterfaceOptions{Network: &prepare.Options{Datapath: datapath}}); err != nil {
						t.Fatal(err)
					}
					pod.Node.IP(t, "link del net1")
				}
				loseNet1()
				if err := session.Unplug(t.Context(), "net1"); err != nil {
					t.Fatal(err)
				}
				without("after the unplug")
				loseNet1()
				if err := session.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !named {
					h.Interfaces = nil
				}
				if s := run(t, h).Status(); !s.Ready || len(s.Interfaces) != 1 {
					t.Errorf("the next session's status is %+v", s)
				}
				without("in the next session")
			})
		}
	}
}

// What is asked of the socket as curl does is understood, and refused with a kind.
func TestPlugByCurl(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	addNets(t, pod, 1)
	h := hotplugHook(t, pod)
	h.SkipCheck = true
	run(t, h)
	post := func(resource, request string) (status string, answer map[string]any) {
		t.Helper()
		var body bytes.Buffer
		cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}", "--unix-socket", filepath.Join(h.StateDir, control.SocketName),
			"-d", request, "http://localhost/v1/"+resource)
		cmd.Stdout, cmd.Stderr = &body, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		text, status, _ := strings.Cut(body.String(), "\n\n")
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatalf("%v: %s", err, body.String())
		}
		return status, answer
	}
	for _, c := range []struct{ resource, request, status, key, want string }{
		{"plug", `{"interface": "net1", "timeout": "1s"}`, "200", "tap", "tap-net1"},
		{"plug", `{"interface": "net1"}`, "409", "kind", "plugged"},
		{"plug", `{"interface": "net2", "options": {"mtu": 1400}}`, "409", "error", "no options can be asked for"},
		{"plug", `{"interface": "net2", "model": "x"}`, "409", "error", `unknown field "model"`},
		{"plug", `{"interface": "../x"}`, "409", "error", "../x"},
		{"plug", `{"interface": "net2", "timeout": "-1s"}`, "409", "error", "timeout -1s is negative"},
		{"plug", `x`, "409", "error", `plug: read request: invalid character 'x'`},
		{"plug", `{"interface": "net2", "timeout": 5}`, "409", "error", `want JSON such as {"interface": "net1"`},
		{"unplug", `{}`, "409", "error", "unplug: read request: it names no interface: want JSON"},
		{"plug", `{"interface": "net7", "timeout": "1ms"}`, "409", "kind", "timed-out"},
		{"unplug", `{"interface": "net2"}`, "409", "error", "of the VM's NICs, there is no interface net2 (there are: eth0, net1)"},
	} {
		if status, answer := post(c.resource, c.request); status != c.status || !strings.Contains(fmt.Sprint(answer[c.key]), c.want) {
			t.Errorf("%s %s: %s %v", c.resource, c.request, status, answer)
		}
	}
	if status, answer := post("unplug", `{"interface": "net1"}`); status != "200" {
		t.Errorf("unplug: %s %v", status, answer)
	}
	if _, err := h.Plug(t.Context(), prestart.PlugRequest{Interface: "net7", Timeout: time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an interface that does not come: %v", err)
	}
	if _, err := h.Plug(t.Context(), prestart.PlugRequest{Interface: "net7", Timeout: -time.Second}); err == nil || !strings.Contains(err.Error(), "timeout -1s is negative") {
		t.Errorf("a negative timeout: %v", err)
	}
	notThere := &discover.NotFoundError{}
	if err := h.Unplug(t.Context(), prestart.PlugRequest{Interface: "net1"}); err == nil || errors.As(err, &notThere) {
		t.Errorf("twice: %v", err)
	}
}
