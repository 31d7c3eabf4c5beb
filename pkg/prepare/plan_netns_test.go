package prepare_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// TestPlanIsAScript has a shell do what a plan prints, in one pod,
// and prepare in another one that is like it: they are the same afterwards.
func TestPlanIsAScript(t *testing.T) {
	t.Parallel()
	for _, c := range planned() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			scripted, prepared := twin(t, c.shape, c.extra), twin(t, c.shape, c.extra)
			plan := planFor(t, scripted, c.options)
			script := plan.String()
			if !c.lineByLine {
				script = atOnce(t, script)
			}
			if out, err := scripted.Command(t.Context(), "sh", "-e", "-x", "-c", script).CombinedOutput(); err != nil {
				t.Fatalf("%s%v", out, err)
			}
			prepared.In(t, func() error {
				store, err := prepare.OpenStore(t.Context(), t.TempDir())
				if err != nil {
					return err
				}
				defer store.Close()
				_, _, err = prepare.Apply(t.Context(), nil, store, planFor(t, prepared, c.options))
				return err
			})
			// A shell has no words for the BPF program on the tap: the plan has a comment.
			_, _ = prepared.Output(t.Context(), "tc", "qdisc", "del", "dev", plan.NIC().Tap, "clsact")
			if d := podtest.Diff(inNoOrder(podtest.TakeSnapshot(t, prepared.NS)), inNoOrder(podtest.TakeSnapshot(t, scripted.NS))); d != "" {
				t.Errorf("a shell makes of the plan (-prepared +scripted):\n%s", d)
			}
			// nft(8) prints some rules alike that are not.
			if d := podtest.Diff(podtest.Expressions(t, prepared.NS), podtest.Expressions(t, scripted.NS)); d != "" {
				t.Errorf("nft makes of the rules' text (-prepared +scripted):\n%s", d)
			}
		})
	}
}

type plannedPod struct {
	name    string
	shape   podtest.Shape
	extra   []string // ip(8) lines in the pod
	options prepare.Options
	// lineByLine has the shell start nft(8) for each of its lines, as a user's does.
	lineByLine bool
}

// atOnce has the shell give nft(8) all its lines at once: it makes of its arguments a line, and
// is started up to two hundred times by a plan.
func atOnce(t *testing.T, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nft")
	return "nft() { echo \"$*\" >>" + file + "; }\n" + script + "\ncommand nft -f " + file + "\n"
}

func planned() []plannedPod {
	var all []plannedPod
	for _, shape := range podtest.Shapes() {
		all = append(all,
			plannedPod{name: string(shape), shape: shape},
			plannedPod{name: "redirect " + string(shape), shape: shape, options: prepare.Options{Datapath: "redirect"}})
	}
	ports := guest.Ports{TCP: []guest.PortRange{{First: 22, Last: 22}, {First: 8000, Last: 8010}}, UDP: []guest.PortRange{{First: 53, Last: 53}}}
	return append(all,
		plannedPod{name: "neighbours", shape: podtest.BridgeDual, extra: []string{
			"neigh add 10.22.0.99 lladdr 02:00:00:00:00:99 nud permanent dev eth0",
			"neigh add fd00:10:22::99 lladdr 02:00:00:00:00:99 nud permanent dev eth0",
			"neigh add fe80::99 lladdr 02:00:00:00:00:99 nud permanent dev eth0",
			"neigh add proxy 10.22.0.98 dev eth0",
		}},
		plannedPod{name: "addresses", shape: podtest.BridgeDual, extra: []string{"addr add 10.22.0.50/24 dev eth0", "addr add 10.23.0.7/16 dev eth0"}},
		plannedPod{name: "many addresses", shape: podtest.BridgeCNI, extra: addresses(60)},
		plannedPod{name: "options", shape: podtest.KindnetDual, options: prepare.Options{
			MAC: mac.Addr{2, 0, 0, 0, 0, 7}, MTU: 1400, Queues: 4, TapOwner: &prepare.Owner{UID: 107, GID: 108},
			Names: map[string]string{"uplink": "uplink", podtest.SwitchRole: "switch", "tap": "vm"},
		}, lineByLine: true},
		plannedPod{name: "no guard", shape: podtest.AWS, options: prepare.Options{NoGuard: true}},
		plannedPod{name: "no IPv6", shape: podtest.CalicoDual, options: prepare.Options{NoIPv6: true}},
		plannedPod{name: "ports of the pod", shape: podtest.BridgeDual, options: prepare.Options{Datapath: "redirect", PodPorts: ports}},
		plannedPod{name: "ports of the VM", shape: podtest.BridgeDual, options: prepare.Options{
			Datapath: "redirect", VMPorts: ports, VMAlias: netip.MustParseAddr("169.254.100.2"), VMAlias6: netip.MustParseAddr("fd00:a11::1"),
		}, lineByLine: true},
		plannedPod{name: "ports without guard", shape: podtest.AWS, options: prepare.Options{Datapath: "redirect", NoGuard: true, PodPorts: ports, NoIPv6: true}},
		plannedPod{name: "peers", shape: podtest.BridgeCNI, extra: []string{
			"addr add 10.6.0.1 peer 10.6.0.2/32 dev eth0", "addr add 10.7.0.1 peer 10.7.9.1/24 dev eth0", "addr add fd00:6::1 peer fd00:6::2/128 dev eth0 nodad",
		}},
		plannedPod{name: "IPv6 default without gateway", shape: podtest.BridgeDual, extra: []string{
			"route del default via fd00:10:22::1 dev eth0", "route add ::/0 dev eth0 metric 7", "route add ::/0 via fd00:10:22::9 dev eth0 metric 9",
			"route del default via 10.22.0.1 dev eth0", "route add default dev eth0",
		}},
		plannedPod{name: "too small for IPv6", shape: podtest.BridgeCNI, extra: []string{"link set eth0 mtu 1000"}},
		plannedPod{name: "IPv6 only", shape: podtest.KindnetDual, extra: []string{"addr del 10.244.0.2/24 dev eth0"}},
	)
}

// addresses are so many, for eth0.
func addresses(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("addr add 10.99.%d.7/24 dev eth0", i))
	}
	return lines
}

// twin is a pod of a shape that is like any other: the node's MACs too, of which
// IPv6's router is made. It has one interface.
func twin(t *testing.T, shape podtest.Shape, extra []string) *podtest.Pod {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	var lines []string
	for i, name := range linksOf(t, pod.Node) {
		lines = append(lines, "link set "+name+" address "+net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}.String())
	}
	pod.Node.IP(t, lines...)
	for _, name := range linksOf(t, pod.NS) {
		if name != pod.Interface {
			pod.IP(t, "link del "+name)
		}
	}
	pod.IP(t, slices.Concat(extra, []string{"neigh flush dev eth0"})...)
	return pod
}

// linksOf are the names of a namespace's links but for its loopback.
func linksOf(t *testing.T, ns *podtest.NS) []string {
	t.Helper()
	var links []struct{ IfName string }
	if err := json.Unmarshal([]byte(ns.Run(t, "ip", "-j", "link", "show")), &links); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		if l.IfName != "lo" {
			names = append(names, l.IfName)
		}
	}
	return names
}

func planFor(t *testing.T, pod *podtest.Pod, o prepare.Options) prepare.Plan {
	t.Helper()
	var p prepare.Plan
	pod.In(t, func() error {
		if pod.Shape == podtest.L2 { // a pod's only interface has an address
			all, err := discover.ReadInterfaces()
			if err == nil {
				p, err = prepare.NewPlan(all[slices.IndexFunc(all, func(in discover.Interface) bool { return in.Name == pod.Interface })], o)
			}
			return err
		}
		found, err := discover.ReadPod(t.Context(), discover.Options{Interfaces: []string{pod.Interface}})
		if err == nil {
			p, err = prepare.NewPlan(found.Interfaces[0], o)
		}
		return err
	})
	return p
}

var comment = regexp.MustCompile(`(?m)^ *"comment": .*\n`)

// inNoOrder leaves out comments, and the order: the kernel makes the routes to ff00::/8
// when it notices that links have carriers.
func inNoOrder(snapshot string) string {
	lines := strings.Split(comment.ReplaceAllString(snapshot, ""), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
