package cniplugin_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// What the plugin prepares the agent serves before ADD returns, and lets go of before DEL
// does. Without an agent ADD succeeds, and one that starts later serves it.
func TestAgent(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewFlannelPod(t)
			r := newRuntime(t, pod.Node)
			list, rt := r.list("1.1.0", plugin(capabilities, `"datapath": "`+datapath+`"`)), sandbox(pod.NS, "c1", "eth0", isVM)
			before := settled(t, pod.NS)
			r.add(list, rt)
			if log := r.log.String(); !strings.Contains(log, "not served yet") {
				t.Errorf("without an agent it says\n%s", log)
			}
			log := r.startAgent()
			for range 2 {
				result := r.add(list, rt)
				tap := result.Interfaces[len(result.Interfaces)-1]
				guest, err := podtest.StartGuest(t.Context(), pod.NS, tap.Name, macOf(t, result, "eth0"))
				if err != nil {
					t.Fatal(err)
				}
				lease, err := guest.Udhcpc(t.Context())
				if err != nil || lease["ip"] != pod.IPv4.Addr().String() || lease["dns"] != "10.96.0.10" || lease["hostname"] != "vm-c1" || lease["search"] != "svc.cluster.local" {
					t.Errorf("the guest got %v, %v", lease, err)
				}
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
				if err := guest.Close(); err != nil {
					t.Fatal(err)
				}
				r.del(list, rt)
				r.empty()
				log.Until(t, "the agent has no pod", func(string) bool { // DEL does not wait for a busy one
					status, err := agent.Client{StateDir: r.base}.Status(t.Context())
					return err == nil && len(status.Pods) == 0
				})
				same(t, "afterwards", before, pod.NS)
			}
		})
	}
}

// A NIC that goes while the agent serves the pod's other one is nothing to warn of.
func TestLaterWithAgent(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	r.startAgent()
	options := plugin(`"select": "all"`)
	first, second := r.list("1.1.0", options), r.list("1.1.0", `{"type": "ptp", `+hostLocal+`}, `+options)
	second.Name = "second"
	eth0, net1 := sandbox(pod.NS, "c1", "eth0", nil), sandbox(pod.NS, "c1", "net1", nil)
	r.add(first, eth0)
	r.add(second, net1)
	r.del(second, net1)
	status, err := agent.Client{StateDir: r.base}.Status(t.Context())
	if err != nil || len(status.Pods) != 1 || !status.Pods[0].Served.Ready || len(status.Pods[0].Served.Interfaces) != 1 {
		t.Errorf("the agent serves %+v, %v", status.Pods, err)
	}
	r.del(first, eth0)
	if log := r.log.String(); log != "" {
		t.Errorf("the plugin logged:\n%s", log)
	}
}

// startAgent starts an agent, and waits until it serves. It returns its log.
func (r *runtime) startAgent() *podtest.Buffer {
	r.t.Helper()
	log := &podtest.Buffer{}
	a := agent.New(agent.Options{StateDir: r.base, Log: slog.New(slog.NewTextHandler(log, nil))})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
		if r.t.Failed() {
			r.t.Logf("the agent logged:\n%s", log)
		}
	})
	log.Wait(r.t, "msg=serving")
	return log
}

// A network namespace that is named by a process, as cri-dockerd does, is served by an agent
// that does not see the node's processes if it is mounted, too, as Docker has it. Else ADD
// says so, and changes nothing.
func TestNetnsOfProcess(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	mounted := filepath.Join(t.TempDir(), "netns")
	if err := os.WriteFile(mounted, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(pod.Path(), mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	cmd := podtest.Command(context.WithoutCancel(t.Context()), nil, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
		podtest.Built(t, "virt-launcher-net"), "node", "--state-dir", r.base)
	var log podtest.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	log.Wait(t, "serving")
	list, rt := r.list("1.1.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	before := settled(t, pod.NS)
	result := r.add(list, rt)
	if got := result.Interfaces[len(result.Interfaces)-1].Sandbox; got != pod.Path() {
		t.Errorf("the tap is in %s", got)
	}
	status, err := agent.Client{StateDir: r.base}.Status(t.Context())
	if err != nil || len(status.Pods) != 1 || !status.Pods[0].Served.Ready || status.Pods[0].Netns != mounted {
		t.Errorf("the agent serves %+v, %v\n%s", status.Pods, err, &log)
	}
	if err := r.check(list, rt); err != nil {
		t.Error(err)
	}
	r.del(list, rt)
	r.empty()
	if err := errors.Join(unix.Unmount(mounted, 0), os.Remove(mounted)); err != nil {
		t.Fatal(err)
	}
	_, err = r.tryAdd(t.Context(), list, rt)
	wantError(t, err, types.ErrInvalidEnvironmentVariables, pod.Path(), "mounted nowhere", "containerd")
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// listenAsAgent has somebody listen in the agent's place, until the test's end, who answers
// nobody.
func (r *runtime) listenAsAgent() net.Listener {
	r.t.Helper()
	l, err := net.Listen("unix", filepath.Join(r.base, attachment.SocketName))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	return l
}

// An agent that does not answer, or can't serve, is no failure of ADD and DEL.
func TestSilentAgent(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	list, rt := r.list("1.1.0", plugin(`"select": "all"`)), sandbox(pod.NS, "c1", "eth0", nil)
	r.add(list, rt)
	r.listenAsAgent()
	r.add(list, rt)
	r.del(list, rt)
	r.empty()
	for _, want := range []string{"not served yet", "did not stop serving the pod", "does not answer within 5s"} {
		if log := r.log.String(); !strings.Contains(log, want) {
			t.Errorf("no %q in\n%s", want, log)
		}
	}
}

// A call that may not wait as long as an agent may take ends in its time, too.
func TestSilentAgentOfShortCall(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	list, rt := r.list("1.1.0", plugin(`"select": "all"`, `"timeout": "4s"`)), sandbox(pod.NS, "c1", "eth0", nil)
	r.add(list, rt)
	r.listenAsAgent()
	r.del(list, rt)
	r.empty()
}

// GC waits once for an agent that does not answer, however many containers there are.
func TestGarbageOfSilentAgent(t *testing.T) {
	t.Parallel()
	pod, other := podtest.NewPod(t, podtest.Flannel), podtest.NewPod(t, podtest.Calico)
	r := newRuntime(t, pod.Node)
	list := r.list("1.1.0", plugin(`"select": "all"`))
	r.add(list, sandbox(pod.NS, "c1", "eth0", nil))
	r.add(list, sandbox(other.NS, "c2", "eth0", nil))
	r.forget()
	l := r.listenAsAgent()
	asked := make(chan int)
	go func() {
		count := 0
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			defer conn.Close()
			count++
		}
		asked <- count
	}()
	if err := r.gc(list); err != nil {
		t.Error(err)
	}
	l.Close()
	if count := <-asked; count != 1 {
		t.Errorf("the agent was asked %d times", count)
	}
	r.empty()
}

// A plugin that locks the pod's network namespace, as sbr does at each call, works for
// another interface of a pod whose VM is served, and waits for nobody.
func TestPluginThatLocks(t *testing.T) {
	t.Parallel()
	pod := podtest.NewFlannelPod(t)
	r := newRuntime(t, pod.Node)
	r.startAgent()
	list, rt := r.list("1.0.0", plugin(capabilities)), sandbox(pod.NS, "c1", "eth0", isVM)
	result := r.add(list, rt)
	ctx, cancel := context.WithTimeout(t.Context(), podtest.Patience)
	defer cancel()
	other, net1 := r.list("1.0.0", `{"type": "ptp", `+hostLocal+`}, {"type": "sbr"}`), sandbox(pod.NS, "c1", "net1", nil)
	if _, err := r.tryAdd(ctx, other, net1); err != nil {
		t.Errorf("ADD: %v", err)
	}
	guest, err := podtest.StartGuest(t.Context(), pod.NS, "tap-eth0", macOf(t, result, "eth0"))
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
		t.Errorf("the guest got %v, %v", lease, err)
	}
	if err := r.node.Do(func() error { return r.cni.DelNetworkList(ctx, other, net1) }); err != nil {
		t.Errorf("DEL: %v", err)
	}
	r.del(list, rt)
}
