package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// client is udhcpc in a guest, which renews its lease again and again.
type client struct {
	out podtest.Buffer
}

// stay starts a DHCP client that stays, and returns once it has a lease.
func stay(t *testing.T, guest *podtest.Guest) *client {
	t.Helper()
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$1 $ip\" >&2\n[ -z \"$ip\" ] || ip addr replace \"$ip/32\" dev eth0\n"+
		"[ \"$1\" != bound ] || { set -- $staticroutes; [ -z \"$2\" ] || ip route replace \"$1\" dev eth0; }\n"), 0o700); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	c := &client{}
	cmd := guest.Command(context.WithoutCancel(t.Context()), "busybox", "udhcpc", "--interface", "eth0", "--foreground", "--timeout", "1", "-O", "staticroutes", "--script", script)
	cmd.Stdout, cmd.Stderr = &c.out, &c.out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return c
}

// count is how often the client told of an event.
func (c *client) count(event string) int {
	return bytes.Count([]byte(c.out.String()), []byte(event+" "))
}

// An agent is killed again and again at random moments, while guests renew their leases:
// none of them loses its address, and all are answered afterwards. (udhcpc takes each lease
// for one of 16 seconds or more, so shorter ones would end; a busy machine takes its time to
// start an agent.)
func TestKilledUnderRenewingGuests(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	const pods = 8
	clients := make([]*client, pods)
	p := n.startProcess(t)
	for i := range clients {
		pod := podtest.NewPod(t, podtest.Calico)
		v := n.prepare(t, pod, n.mount(t, pod.NS, fmt.Sprint("vm", i)), "eth0", map[string]string{"leaseTime": `"80s"`})
		n.until(t, "it answers", func(agent.Status) bool { return true })
		if err := n.client().Attach(t.Context(), v.ContainerID, "eth0"); err != nil {
			t.Fatal(err)
		}
		clients[i] = stay(t, v.guest(t))
	}
	bound := func(s agent.Status) bool {
		for _, p := range s.Pods {
			if l := p.Served.Of("eth0").Lease; l == nil || l.State != lease.Bound {
				return false
			}
		}
		return len(s.Pods) == pods
	}
	n.until(t, "all have their leases", bound)
	for range 8 {
		time.Sleep(time.Duration(rand.IntN(1500)) * time.Millisecond)
		p.kill()
		p = n.startProcess(t)
	}
	started := time.Now()
	n.until(t, "all have renewed their leases", func(s agent.Status) bool {
		for _, p := range s.Pods {
			if l := p.Served.Of("eth0").Lease; l == nil || !l.Renewed.After(started) {
				return false
			}
		}
		return bound(s)
	})
	for i, c := range clients {
		if c.count("bound") != 1 || c.count("deconfig") > 1 {
			t.Errorf("guest %d lost its lease:\n%s", i, c.out.String())
		}
	}
}

// An infinite lease, of which a guest never speaks again, is known to the next agent,
// and the VM has its network while there is none.
func TestInfiniteLease(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm1")
	first := n.startProcess(t)
	guest := v.guest(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	v.boot(t, guest)
	n.until(t, "it is bound", func(s agent.Status) bool { return s.Pods[0].Served.Of("eth0").Lease.State == lease.Bound })
	first.kill()
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
	second := n.startProcess(t)
	n.until(t, "it is bound again", func(s agent.Status) bool {
		return ready(s) == 1 && s.Pods[0].Served.Of("eth0").Lease.State == lease.Bound
	})
	second.end(t)
	guest.Run(t, "ping", "-c3", "-i0.2", "-W20", podtest.OutsideIP.String())
}

// A VM that is saved, and resumed after the agent was started anew, has its lease: it never
// asks. While it is away, the agent says that no VM is there.
func TestVMIsAwayWhileAgentRestarts(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm1")
	first := n.startProcess(t)
	n.until(t, "it is served", func(s agent.Status) bool { return ready(s) == 1 })
	guest, err := podtest.StartGuest(t.Context(), v.NS, v.tap, v.mac)
	if err != nil {
		t.Fatal(err)
	}
	v.boot(t, guest)
	there := func(s agent.Status) bool { return ready(s) == 1 && s.Pods[0].Served.NoLease() == "" }
	away := func(s agent.Status) bool {
		return ready(s) == 1 && strings.Contains(s.Pods[0].Served.NoLease(), "no VM has "+v.tap+" open")
	}
	n.until(t, "the VM is there", there)
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	n.until(t, "the VM is away", away)
	first.end(t)
	n.startProcess(t)
	n.until(t, "the next agent says so", away)
	tap, err := podtest.OpenTap(v.NS, v.tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	n.until(t, "the VM is there again", there)
}

// A second agent waits until the first has ended, whichever way, and serves at once then.
func TestTwoAgents(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	v := n.newVM(t, "vm1")
	for name, end := range map[string]func(testing.TB, *process){"killed": func(_ testing.TB, p *process) { p.kill() }, "ended": func(t testing.TB, p *process) { p.end(t) }} {
		t.Run(name, func(t *testing.T) {
			first := n.startProcess(t)
			n.until(t, "the first serves", func(s agent.Status) bool { return ready(s) == 1 && s.PID == first.cmd.Process.Pid })
			second := n.startProcess(t)
			second.log.Wait(t, "another agent serves this node")
			end(t, first)
			at := time.Now()
			n.until(t, "the second serves", func(s agent.Status) bool { return ready(s) == 1 && s.PID == second.cmd.Process.Pid })
			took := time.Since(at)
			t.Logf("the second serves after %s", took)
			if took > 5*time.Second {
				t.Errorf("the second serves no sooner than after %s", took)
			}
			v.boot(t, v.guest(t))
		})
	}
}
