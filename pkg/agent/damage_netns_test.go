package agent_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// What can't be served is told, and disturbs nobody: neither at the start nor later.
func TestDamaged(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	good := n.newVM(t, "good")
	damaged := n.newVM(t, "damaged")
	if err := os.WriteFile(filepath.Join(attachment.Dir(n.stateDir, damaged.ContainerID), "eth0.attachment"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	half := n.newVM(t, "half") // its other NIC is good
	if err := os.WriteFile(filepath.Join(attachment.Dir(n.stateDir, half.ContainerID), "net1.attachment"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	tapless := n.newVM(t, "tapless")
	tapless.IP(t, "link del "+tapless.tap)
	unprepared := attachment.Attachment{ContainerID: "unprepared", Interface: "eth0", Netns: n.mount(t, podtest.NewPod(t, podtest.Calico).NS, "unprepared"), Since: time.Now(), Pod: attachment.Pod{Namespace: "default", Name: "unprepared"}}
	nowhere := unprepared
	nowhere.ContainerID, nowhere.Netns, nowhere.Pod.Name = "nowhere", filepath.Join(n.netns, "none", "x"), "nowhere"
	wrong := n.newVM(t, "wrong")
	wrong.Options["mtu"] = []byte(`"much"`)
	for _, a := range []attachment.Attachment{unprepared, nowhere, wrong.Attachment} {
		if err := a.Write(n.stateDir); err != nil {
			t.Fatal(err)
		}
	}
	n.start(t)
	status := n.until(t, "it has looked at all", func(s agent.Status) bool {
		failed := 0
		for _, p := range s.Pods {
			failed += len(p.NotServed)
		}
		return ready(s) == 2 && failed == 4
	})
	for name, want := range map[string]string{"tapless": "tap-eth0: no such device: " + remedy, "unprepared": "not prepared: " + remedy, "nowhere": "no such file", "wrong": "mtu"} {
		for _, p := range status.Pods {
			if p.Name == name && (p.Served.Ready || !strings.Contains(p.NotServed["eth0"], want)) {
				t.Errorf("%s: %+v", name, p)
			}
		}
	}
	if len(status.Errors) != 2 || !strings.Contains(status.Errors[0], "eth0.attachment") || !strings.Contains(status.Errors[1], "net1.attachment") {
		t.Errorf("errors %q", status.Errors)
	}
	if err := os.RemoveAll(attachment.Dir(n.stateDir, damaged.ContainerID)); err != nil { // as DEL does
		t.Fatal(err)
	}
	if status, err := n.client().Status(t.Context()); err != nil || len(status.Errors) != 1 {
		t.Errorf("without the damaged one: errors %q, %v", status.Errors, err)
	}
	good.boot(t, good.guest(t))

	// Who makes the tap again need not tell: it is tried again.
	if _, err := (prestart.Hook{Netns: tapless.Netns, StateDir: attachment.Dir(n.stateDir, tapless.ContainerID), Interfaces: []string{"eth0"}}).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the pod with the new tap is served", func(s agent.Status) bool { return ready(s) == 3 })
	tapless.boot(t, tapless.guest(t))
}

// remedy is that of what the plugin has prepared: nobody runs prepare in such a pod.
const remedy = "recreate the pod"

// What differs from the plan, and a record that is lost, are told with a way out that there
// is: to the node's administrator and to those in the pod.
func TestRemedies(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	changed, unrecorded := n.newVM(t, "changed"), n.newVM(t, "unrecorded")
	if err := os.Remove(filepath.Join(attachment.Dir(n.stateDir, unrecorded.ContainerID), "eth0.json")); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	told := n.until(t, "it serves one", func(s agent.Status) bool {
		return ready(s) == 1 && len(s.Pods) == 2 && s.Pods[1].NotServed["eth0"] != ""
	}).Pods[1].NotServed["eth0"]
	if !strings.Contains(told, "has no record of it: "+remedy) {
		t.Errorf("of a lost record it tells %q", told)
	}
	changed.IP(t, "link set "+changed.tap+" down")
	s := n.until(t, "it is told", func(s agent.Status) bool { return len(s.Pods[0].Served.Interfaces[0].Differences) > 0 })
	inPod := ""
	if err := changed.Do(func() error {
		status, err := control.Client{StateDir: t.TempDir()}.Status(t.Context())
		inPod = status.NotReady()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{s.Pods[0].Served.NotReady(), inPod} {
		if !strings.Contains(text, changed.tap+" is down") || !strings.Contains(text, remedy) || strings.Contains(text, "prepare with") {
			t.Errorf("it tells %q", text)
		}
	}
}

// A NIC whose tap is deleted while it is served is served again with its new one, and the
// pod's other NIC does not notice.
func TestTapDeleted(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	r := n.start(t)
	pod := podtest.NewPod(t, podtest.Calico)
	pod.Node.IP(t, "link add veth1 type veth peer name net1 netns "+pod.Path(), "addr add 10.99.0.1/24 dev veth1", "link set veth1 up")
	pod.IP(t, "addr add 10.99.0.2/24 dev net1", "link set net1 up")
	if err := podtest.WaitSettled(t.Context(), pod.NS); err != nil {
		t.Fatal(err)
	}
	path := n.mount(t, pod.NS, "vm1")
	eth0 := n.prepare(t, pod, path, "eth0", nil)
	net1 := n.prepare(t, pod, path, "net1", map[string]string{"leaseTime": `"1h"`, "hostname": `"other"`})
	n.until(t, "it answers", func(agent.Status) bool { return true })
	for _, v := range []vm{eth0, net1} {
		if err := n.client().Attach(t.Context(), v.ContainerID, v.Attachment.Interface); err != nil {
			t.Fatal(err)
		}
	}
	guest := eth0.guest(t)
	eth0.boot(t, guest)
	since := n.until(t, "both are served", func(s agent.Status) bool { return ready(s) == 1 && len(s.Pods[0].Served.Interfaces) == 2 }).Pods[0].Served.Of("eth0").Lease.Since
	other, err := podtest.StartGuest(t.Context(), pod.NS, net1.tap, net1.mac)
	if err != nil {
		t.Fatal(err)
	}
	if lease, err := other.Udhcpc(t.Context()); err != nil || lease["ip"] != "10.99.0.2" || lease["hostname"] != "other" || lease["lease"] != "3600" {
		t.Errorf("the other NIC's lease is %v, %v", lease, err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	pod.IP(t, "link del "+net1.tap)
	n.log.Wait(t, "interface is gone: "+remedy) // at once, and then it is tried again
	n.until(t, "it is told with the way out", func(s agent.Status) bool {
		return strings.Contains(s.Pods[0].NotServed["net1"], "no such device: "+remedy)
	})
	n.prepare(t, pod, path, "net1", map[string]string{"leaseTime": `"1h"`})
	n.until(t, "it is served again", func(s agent.Status) bool { return ready(s) == 1 })
	if now := n.until(t, "it answers", func(agent.Status) bool { return true }).Pods[0].Served.Of("eth0").Lease; !now.Since.Equal(since) {
		t.Errorf("the first NIC's lease is %+v, since %s before", now, since)
	}
	// One goes, and then the other.
	if err := n.client().Detach(t.Context(), net1.ContainerID, "net1"); err != nil {
		t.Fatal(err)
	}
	if s := n.until(t, "one is left", func(s agent.Status) bool { return ready(s) == 1 }); len(s.Pods[0].Served.Interfaces) != 1 {
		t.Errorf("left is %+v", s.Pods)
	}
	if err := n.client().Detach(t.Context(), eth0.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	if s := r.Status(); len(s.Pods) != 0 {
		t.Errorf("left is %+v", s.Pods)
	}
}

// What can't be read when the plugin says so, as where the process has no descriptor left, is
// read again.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start(t)
	v := n.newVM(t, "vm")
	n.until(t, "it listens", func(agent.Status) bool { return true })
	file := filepath.Join(attachment.Dir(n.stateDir, v.ContainerID), "eth0.attachment")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil { // root can read whatever is a file
		t.Fatal(err)
	}
	if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err == nil {
		t.Error("it serves what it can't read")
	}
	n.until(t, "it is told", func(s agent.Status) bool { return len(s.Errors) == 1 })
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 && len(s.Errors) == 0 })
	v.boot(t, v.guest(t))
}

// An agent whose socket somebody removes ends, so that the next one hears of new pods: by
// itself, with its directory, or in favour of another one's.
func TestSocketRemoved(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"rm DIR/node.sock", "mv DIR DIR.old", "rm -r DIR/*", "mv DIR/node.lock DIR/old"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			ended := make(chan error, 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() { ended <- agent.New(agent.Options{StateDir: n.stateDir}).Run(ctx) }()
			n.until(t, "it listens", func(agent.Status) bool { return true })
			if out, err := exec.Command("sh", "-c", strings.ReplaceAll(how, "DIR", n.stateDir)).CombinedOutput(); err != nil {
				t.Fatal(err, string(out))
			}
			next := n.start(t)
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "removed the agent's socket") {
				t.Errorf("it ends with %v", err)
			}
			v := n.newVM(t, "vm")
			n.until(t, "the next one listens", func(agent.Status) bool { return true })
			if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
				t.Error(err)
			}
			if why := next.NotReady(); why != "" {
				t.Errorf("the next one is not ready: %s", why)
			}
		})
	}
}

// Who asks an agent that is stopped gets an error, not nothing.
func TestStatusOfStoppedAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	p := n.startProcess(t)
	n.until(t, "it listens", func(agent.Status) bool { return true })
	p.freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.client().Status(ctx); err == nil || !strings.Contains(err.Error(), "does not answer within") {
		t.Errorf("the status is %v", err)
	}
}

// An agent that was frozen may let go of a NIC that the plugin has attached anew meanwhile:
// what it was asked it does at once, in any order. It serves what is attached.
func TestLateDetach(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm")
	n.start(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
		t.Fatal(err)
	}
	n.until(t, "it is let go of", func(s agent.Status) bool { return len(s.Pods) == 0 })
	n.until(t, "it is served again", func(s agent.Status) bool { return ready(s) == 1 })
	v.boot(t, v.guest(t))
}
