package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// nodeOf is a node with one pod that the plugin has prepared.
func nodeOf(t *testing.T, pod *podtest.Pod) (stateDir string, a attachment.Attachment) {
	t.Helper()
	stateDir = t.TempDir()
	path := filepath.Join(t.TempDir(), "vm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	podtest.Mount(t, pod.Path(), path, "", "")
	a = attachment.Attachment{
		ContainerID: "sandbox", Interface: "eth0", Netns: path, Since: time.Now(), Pod: attachment.Pod{Namespace: "shop", Name: "vm"},
		Options: map[string]json.RawMessage{"hostname": []byte(`"vm"`)},
	}
	hook := prestart.Hook{Netns: path, StateDir: attachment.Dir(stateDir, a.ContainerID), NoIdentity: true}
	if _, err := hook.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Write(stateDir); err != nil {
		t.Fatal(err)
	}
	return stateDir, a
}

// startNode starts the agent as in a container with these capabilities alone, and ends it
// at the test's end.
func startNode(t *testing.T, stateDir string, caps []string, args ...string) (cmd *podtest.Cmd, log *podtest.Buffer) {
	t.Helper()
	set := "-all"
	for _, name := range caps {
		set += ",+" + name
	}
	line := append([]string{"-m", "sh", "-c", confine, "sh", stateDir, "0", set, os.Args[0], "node", "--state-dir", stateDir}, args...)
	cmd, log = podtest.Command(context.WithoutCancel(t.Context()), nil, "unshare", line...), &podtest.Buffer{}
	cmd.Env = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
				t.Errorf("node ended with %v: %s", err, log.String())
			}
		}
	})
	return cmd, log
}

// untilServed waits until an agent tells of a NIC that is served, or is not.
func untilServed(t *testing.T, stateDir string, log *podtest.Buffer) agent.Pod {
	t.Helper()
	var pod agent.Pod
	log.Until(t, "a NIC is served, or not", func(string) bool {
		status, err := agent.Client{StateDir: stateDir}.Status(t.Context())
		if err == nil && len(status.Pods) == 1 {
			pod = status.Pods[0]
		}
		return pod.Served.Ready || len(pod.NotServed) > 0
	})
	return pod
}

// A second agent that has the same address for probes waits, and has it once the first ends.
func TestNodeListenTwice(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	stateDir, _ := nodeOf(t, pod)
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		address := "unix:" + filepath.Join(stateDir, "probes")
		if end == syscall.SIGTERM {
			free, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address = free.Addr().String()
			free.Close()
		}
		caps := []string{"sys_admin", "net_raw", "net_admin", "dac_override", "sys_ptrace"}
		first, log := startNode(t, stateDir, caps, "--listen", address)
		untilServed(t, stateDir, log)
		second, log := startNode(t, stateDir, caps, "--listen", address)
		log.Until(t, "the second waits", func(s string) bool { return strings.Contains(s, "another agent serves this node") })
		if err := first.Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		_ = first.Wait() // killed, or not
		log.Until(t, "the second listens and serves", func(s string) bool {
			return strings.Contains(s, "listening for probes") && strings.Contains(s, "msg=serving")
		})
		if err := errors.Join(second.Process.Signal(syscall.SIGTERM), second.Wait()); err != nil {
			t.Errorf("%v: %s", err, log.String())
		}
	}
}

// What the agent needs, each for what; docs/node.md says the same. It lays down all else.
func TestNodeLeastPrivilege(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	stateDir, _ := nodeOf(t, pod)
	for missing, caps := range map[string][]string{"SYS_ADMIN": {"net_raw", "net_admin"}, "NET_RAW": {"sys_admin", "net_admin"}} {
		cmd, log := startNode(t, stateDir, caps)
		if err := cmd.Wait(); err == nil || !strings.Contains(log.String(), "needs the capability "+missing) {
			t.Errorf("without %s: %v: %s", missing, err, log.String())
		}
	}
	t.Run("without NET_ADMIN", func(t *testing.T) {
		_, log := startNode(t, stateDir, []string{"sys_admin", "net_raw"})
		served := untilServed(t, stateDir, log)
		if !served.Served.Ready || served.Served.Of("eth0").Unwatched == "" || !strings.Contains(log.String(), "NET_ADMIN") {
			t.Errorf("it serves %+v: %s", served, log.String())
		}
	})
	listen := filepath.Join(stateDir, "probes")
	cmd, log := startNode(t, stateDir, []string{"sys_admin", "net_raw", "net_admin", "dac_override", "sys_ptrace"}, "--listen", "unix:"+listen)
	served := untilServed(t, stateDir, log)
	if !served.Served.Ready || served.Served.Of("eth0").Unwatched != "" {
		t.Errorf("it serves %+v: %s", served, log.String())
	}
	const none, kept = "0000000000000000", "0000000000203000" // CAP_SYS_ADMIN, CAP_NET_RAW, CAP_NET_ADMIN
	want := []string{"CapAmb " + none, "CapEff " + kept, "CapInh " + none, "CapPrm " + kept, "NoNewPrivs 1"}
	if got := threads(t, cmd.Process.Pid); !slices.Equal(got, want) {
		t.Errorf("it has %v", got)
	}
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
		t.Errorf("lease %v: %v", lease, err)
	}
	metrics := pod.Node.Run(t, "curl", "-sS", "--fail", "--unix-socket", listen, "http://x/metrics")
	for _, want := range []string{
		`virt_launcher_net_ready{namespace="shop",pod="vm"} 1`, `virt_launcher_net_nic_served{namespace="shop",pod="vm",interface="eth0"} 1`,
		`virt_launcher_net_dhcp_lease_state{namespace="shop",pod="vm",interface="eth0",protocol="dhcpv4",state="bound"} 1`,
		`virt_launcher_net_guard_dropped_packets_total{namespace="shop",pod="vm",direction="from_guest",interface="eth0",reason="forged-ip"} 0`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in:\n%s", want, metrics)
		}
	}
	if out := pod.Node.Run(t, "curl", "-sS", "--fail", "--unix-socket", listen, "http://x/readyz"); out != "ok\n" {
		t.Errorf("it is ready: %q", out)
	}
}

// Where the network namespace is named by a process, which the agent may not look at, it says
// what helps.
func TestNodeOfProcess(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.Flannel)
	stateDir, a := nodeOf(t, pod)
	a.Netns = pod.Path()
	if err := a.Write(stateDir); err != nil {
		t.Fatal(err)
	}
	_, log := startNode(t, stateDir, []string{"sys_admin", "net_raw", "net_admin"})
	if why := untilServed(t, stateDir, log).NotServed["eth0"]; !strings.Contains(why, "ip netns attach NAME PID") || strings.Contains(why, "mountPropagation") {
		t.Errorf("it says %q", why)
	}
}

// In a container of the pod, without any capability, with a read-only root and as another
// user than root, wait and status ask the agent.
func TestInPod(t *testing.T) {
	t.Parallel()
	c := newConfined(t, "1000")
	stateDir, a := nodeOf(t, c.pod)
	_, log := startNode(t, stateDir, []string{"sys_admin", "net_raw", "net_admin"})
	untilServed(t, stateDir, log)
	c.must(nil, "wait", "--for", "network", "--timeout", "60s")
	if out, err := c.command(nil, "wait", "--for", "lease", "--timeout", "1s").CombinedOutput(); err == nil || !strings.Contains(string(out), "it has not asked for it") {
		t.Errorf("without a guest: %v: %s", err, out)
	}
	waiting := make(chan string)
	go func() {
		out, err := c.command(nil, "wait", "--for", "lease", "--timeout", "60s").CombinedOutput()
		waiting <- errorText(err) + string(out)
	}()
	guest := podtest.NewGuest(t, c.pod.NS, "tap-eth0", c.pod.MAC)
	if _, err := guest.Udhcpc(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := <-waiting; !strings.Contains(out, "bound") {
		t.Errorf("wait says %s", out)
	}
	out := c.must(nil, "status")
	for _, want := range []string{"server\t", "interface\teth0", "lease\tbound"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("status says no %q:\n%s", want, out)
		}
	}
	for _, not := range []string{"not prepared", "without a record", "has no record"} {
		if strings.Contains(out, not) {
			t.Errorf("status says %q:\n%s", not, out)
		}
	}
	t.Log(out)
	if out := c.must(nil, "status", "-o", "json"); strings.Contains(out, "null") {
		t.Errorf("status has a list that is none:\n%s", out)
	}
	if out := runCLI(t, "", "node", "status", "--state-dir", stateDir).stdout; !strings.Contains(out, "shop") || !strings.Contains(out, "bound") {
		t.Errorf("node status says\n%s", out)
	} else {
		t.Log(out)
	}
	c.pod.IP(t, "link set tap-eth0 down")
	log.Wait(t, "what=tap-eth0 is=down")
	out = runCLI(t, "", "node", "status", "--state-dir", stateDir).stdout
	if !strings.Contains(out, "no: tap-eth0 is down, not up: ") || !strings.Contains(out, "recreate the pod") {
		t.Errorf("with its tap down node status says\n%s", out)
	}
	// The attachment first: what has one is served again a little later.
	if err := errors.Join(attachment.Remove(stateDir, a.ContainerID, "eth0"), agent.Client{StateDir: stateDir}.Detach(t.Context(), a.ContainerID, "eth0")); err != nil {
		t.Fatal(err)
	}
	if out, err := c.command(nil, "wait", "--for", "lease", "--timeout", "1s").CombinedOutput(); err == nil || !strings.Contains(string(out), "nobody serves") {
		t.Errorf("once it is let go of: %v: %s", err, out)
	}
	if out := c.must(nil, "status"); !strings.Contains(out, "look at the node's agent") || !strings.Contains(out, "on the node if its CNI plugin prepared it") {
		t.Errorf("once it is let go of status says\n%s", out)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error() + ": "
}

// Where nobody reads the agent's log, as while the container runtime is upgraded, VMs are
// served all the same. Who reads it again learns that lines are missing.
func TestNodeLogIsNotRead(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	stateDir, a := nodeOf(t, pod)
	reader, log, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fd, full := int(log.Fd()), 0
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for n := 0; err == nil; full += max(n, 0) {
		n, err = unix.Write(fd, make([]byte, 1<<10))
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	cmd := podtest.Command(context.WithoutCancel(t.Context()), nil, os.Args[0], "node", "--state-dir", stateDir)
	cmd.Env, cmd.Stderr = append(os.Environ(), "VIRT_LAUNCHER_NET_TEST_MAIN=1"), log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill() // where it has ended an error, which is no matter
	log.Close()
	if served := untilServed(t, stateDir, &podtest.Buffer{}); !served.Served.Ready {
		t.Errorf("it serves %+v", served)
	}
	guest := podtest.NewGuest(t, pod.NS, "tap-eth0", pod.MAC)
	if lease, err := guest.Udhcpc(t.Context()); err != nil || lease["ip"] != pod.IPv4.Addr().String() {
		t.Errorf("lease %v: %v", lease, err)
	}
	if _, err := io.CopyN(io.Discard, reader, int64(full)); err != nil {
		t.Error(err)
	}
	client := agent.Client{StateDir: stateDir}
	if err := errors.Join(client.Detach(t.Context(), a.ContainerID, a.Interface), client.Attach(t.Context(), a.ContainerID, a.Interface)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		t.Errorf("it ended with %v", err)
	}
	said, err := io.ReadAll(reader)
	if err != nil || !strings.Contains(string(said), `msg="lines of the log are missing here: nobody read standard error" lines=`) || !strings.Contains(string(said), "msg=ready") {
		t.Errorf("who reads again gets %v: %s", err, said)
	}
}
