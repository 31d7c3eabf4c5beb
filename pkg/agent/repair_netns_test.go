package agent_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/agent"
)

// What a program in the pod deletes of the nftables tables is made whole again while the VM
// runs, and what it changes: neither the guard nor the VM's network is missing for long. A
// program that goes on is not fought. Nobody repairs what is not served any more.
func TestRulesRepaired(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{podtest.SwitchPath, "redirect"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			pod := podtest.NewPod(t, podtest.Calico)
			v := n.prepare(t, pod, n.mount(t, pod.NS, "vm"), "eth0", map[string]string{"datapath": `"` + datapath + `"`})
			planned := rules(t, pod)
			pod.Run(t, "nft", "flush", "ruleset") // before there is an agent
			r := n.start(t)
			repairs := 0
			whole := func(what string) {
				t.Helper()
				repairs++
				r.log.Until(t, what+": it is repaired", func(log string) bool { return strings.Count(log, "the VM's nftables tables") == repairs })
				if now := rules(t, pod); now != planned {
					t.Fatalf("%s: there are\n%s\nnot\n%s", what, now, planned)
				}
				n.until(t, what+": it is ready", func(s agent.Status) bool { return ready(s) == 1 })
			}
			whole("at the start")
			if r.log.Wait(t, "another version of this program"); strings.Contains(r.log.String(), "level=ERROR") {
				t.Errorf("an agent of another version would log\n%s", &r.log)
			}
			guest := v.guest(t)
			v.boot(t, guest)
			ping := func(what string) {
				t.Helper()
				if out, err := guest.Output(t.Context(), "ping", "-c20", "-i0.2", "-W10", podtest.OutsideIP.String()); err != nil {
					t.Errorf("%s: %v\n%s", what, err, out)
				}
			}
			pod.Run(t, "nft", "flush", "ruleset")
			whole("flushed")
			ping("flushed")
			table := strings.TrimPrefix(strings.Split(planned, "\n")[0], "table ")
			pod.Run(t, "sh", "-c", "nft delete table "+strings.TrimSuffix(table, " {"))
			whole("a table deleted")
			pod.Run(t, "sh", "-c", "nft flush table "+strings.TrimSuffix(table, " {"))
			whole("its rules flushed")
			ping("its rules flushed")

			flushed := 0
			for ; !strings.Contains(r.log.String(), "again and again") && flushed < 20; flushed++ {
				pod.Run(t, "nft", "flush", "ruleset")
				n.until(t, "it is noticed", func(s agent.Status) bool {
					return ready(s) == 1 && rules(t, pod) == planned || strings.Contains(r.log.String(), "again and again")
				})
			}
			if flushed < 5 || rules(t, pod) != "" {
				t.Errorf("after %d times there are\n%s", flushed, rules(t, pod))
			}
			if told := n.until(t, "it is told", func(s agent.Status) bool { return ready(s) == 0 }).Pods[0].Served.NotReady(); !strings.Contains(told, "the log says why") {
				t.Errorf("it tells %q", told)
			}
			if err := n.client().Detach(t.Context(), v.ContainerID, "eth0"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// rules are all nftables rules of the pod, table by table, without what frames bring about.
func rules(t *testing.T, pod *podtest.Pod) string {
	t.Helper()
	var kept []string
	for line := range strings.Lines(pod.Run(t, "nft", "-s", "list", "ruleset")) {
		if !strings.Contains(line, "elements = {") && !strings.Contains(line, "expires") {
			kept = append(kept, line)
		}
	}
	tables := strings.SplitAfter(strings.Join(kept, ""), "\n}\n")
	slices.Sort(tables) // one that was made again is the last
	return strings.Join(tables, "")
}

// What the aliases take at the tap is repaired, too: before there is an agent, as another
// version of the plugin has left it, and under one.
func TestAliasesRepaired(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pod := podtest.NewPod(t, podtest.CalicoDual)
	n.prepare(t, pod, n.mount(t, pod.NS, "vm"), "eth0", map[string]string{"datapath": `"redirect"`})
	planned := podtest.TakeSnapshot(t, pod.NS)
	pod.IP(t, "neigh flush dev tap-eth0 nud permanent", "addr flush dev tap-eth0 scope link", "neigh flush dev tap-eth0 nud permanent")
	if podtest.Diff(planned, podtest.TakeSnapshot(t, pod.NS)) == "" {
		t.Fatal("nothing was taken away")
	}
	r := n.start(t)
	whole := func(what string) {
		t.Helper()
		n.until(t, what+": it is ready", func(s agent.Status) bool { return ready(s) == 1 })
		if d := podtest.Diff(planned, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("%s: it is another pod:\n%s", what, d)
		}
	}
	r.log.Wait(t, "another version of this program")
	whole("at the start")
	pod.IP(t, "neigh del "+pod.IPv4.Addr().String()+" dev tap-eth0")
	r.log.Wait(t, "which another program had deleted or changed")
	whole("later")
	if strings.Contains(r.log.String(), "level=ERROR msg=\"can't") {
		t.Errorf("it logs\n%s", r.log.String())
	}
}

// What can't be repaired without the tap is repaired as soon as that is there again.
func TestRepairedWithTap(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{podtest.SwitchPath, "redirect"} {
		n := newNode(t)
		pod := podtest.NewPod(t, podtest.Calico)
		n.prepare(t, pod, n.mount(t, pod.NS, "vm"), "eth0", map[string]string{"datapath": `"` + datapath + `"`})
		planned := podtest.TakeSnapshot(t, pod.NS)
		r := n.start(t)
		n.until(t, "it is ready", func(s agent.Status) bool { return ready(s) == 1 })
		pod.IP(t, "link set tap-eth0 down", "link set tap-eth0 name other")
		pod.Run(t, "nft", "flush", "ruleset")
		r.log.Wait(t, "can't repair the VM's nftables tables")
		pod.IP(t, "link set other name tap-eth0", "link set tap-eth0 up")
		r.log.Wait(t, "which another program had deleted or changed")
		n.until(t, "it is ready again", func(s agent.Status) bool { return ready(s) == 1 })
		if d := podtest.Diff(planned, podtest.TakeSnapshot(t, pod.NS)); d != "" {
			t.Errorf("%s: it is another pod:\n%s", datapath, d)
		}
	}
}

// What an agent can't repair is told when it begins, too.
func TestDamagedBeforeTheAgent(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	pod := podtest.NewPod(t, podtest.Calico)
	n.prepare(t, pod, n.mount(t, pod.NS, "vm"), "eth0", nil)
	pod.IP(t, "link set tap-eth0 down")
	r := n.start(t)
	r.log.Wait(t, "the VM's network is not as planned")
}
