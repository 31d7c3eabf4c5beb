package kind

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	deploy = "../../deploy/"
	own    = "virt-launcher-net" // the namespace, and the DaemonSet in it
	list   = "/etc/cni/net.d/10-flannel.conflist"
	plugin = "/opt/cni/bin/virt-launcher-net"
)

// beside is a container beside the VM, which has the network with it.
const beside = `
          {op: add, path: /spec/containers/-, value: {name: app, image: "localhost/virt-launcher-net/network:test", imagePullPolicy: Never,
            command: [busybox, sh, -euc, "echo ` + hello + ` >/run/nics/index.html; trap exit TERM; busybox httpd -f -p 8080 -h /run/nics & wait"],
            securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}, volumeMounts: [{name: nics, mountPath: /run/nics}]}}`

// newNodeVM is a VM without a sidecar, in a namespace of the level restricted. The test's
// nodes have no device plugin: every container has the device.
func newNodeVM(t *testing.T, namespace, restartPolicy, config string, patches []string, pages ...string) *vm {
	t.Helper()
	patches = append([]string{
		"{op: remove, path: /spec/containers/0/resources/limits/squat.ai~1tun}",
		"{op: replace, path: /metadata/annotations/virt-launcher-net~1config, value: '{\"tapOwner\": \"65534:65534\", \"leaseTime\": \"16s\"" + config + "}'}",
	}, patches...)
	v := newPatchedVM(t, "node", "vm-node", namespace, restartPolicy, patches, pages...)
	v.program = []string{"launcher", "virt-launcher-net"}
	kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
	return v
}

// TestNode follows VMs in pods without sidecar and capabilities, which the node's plugin
// prepares and the node's agent serves, from the plugin's installation to its removal.
func TestNode(t *testing.T) {
	apply(t)
	install(t)
	inside, itself := "http://server.default.svc.cluster.local", "http://self.vm-node-a.svc.cluster.local"
	a := newNodeVM(t, "vm-node-a", "Never", "", nil, inside, itself)
	b := newNodeVM(t, "vm-node-b", "Always", `, "datapath": "redirect", "podPorts": "8080"`, []string{strings.TrimSpace(beside)}, inside)
	before := left(t)
	a.apply(t)
	b.apply(t)

	t.Run("ready", func(t *testing.T) {
		for _, v := range []*vm{a, b} {
			v.waitReady(t)
			v.checkReady(t)
			if caps := v.in(t, "launcher", "grep", "CapBnd", "/proc/self/status"); !strings.HasSuffix(caps, "\t0000000000000000") {
				t.Errorf("the launcher has %s", caps)
			}
		}
	})
	t.Run("reach", func(t *testing.T) {
		a.reach(t)
		b.reach(t)
		page(t, "http://"+b.ip(t)+":8080", hello)
		b.appGets(t, "https://kubernetes.default.svc/livez", "ok")
		b.appGets(t, inside, server)
		if want, got := map[string]string{inside: server, itself: guest}, a.report(t).Got; !maps.Equal(got, want) {
			t.Errorf("the guest got %q, want %q", got, want)
		}
		if got := b.report(t).Got; !maps.Equal(got, map[string]string{inside: server}) {
			t.Errorf("the guest got %q", got)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		address := get(t, "node/"+worker, `.status.addresses[?(@.type=="InternalIP")].address`)
		eventually(t, func(ctx context.Context) error {
			out, err := try(ctx, "kubectl", "exec", "client", "--", "curl", "-sS", "--max-time", "3", "http://"+address+":9809/metrics")
			if err == nil && strings.Count(out, `namespace="vm-node-`) < 2 {
				err = fmt.Errorf("the agent's metrics are\n%s", out)
			}
			return err
		})
	})
	t.Run("network installed again", testNetworkAgain)
	t.Run("agent killed", a.testAgentKilled)
	t.Run("agent upgraded", b.testAgentUpgraded)
	t.Run("second NIC", a.testSecondNIC)
	t.Run("sandbox made again", func(t *testing.T) {
		b.testSandbox(t)
		page(t, "http://"+b.ip(t)+":8080", hello)
	})
	t.Run("end of the VM", a.end)
	t.Run("nothing is left", func(t *testing.T) { nothingIsLeft(t, before, a, b) })
	t.Run("node drained", testDrain)
	t.Run("removed", testRemoval)
}

// install installs the plugin and the agent.
func install(t *testing.T) {
	t.Helper()
	kubectl(t, "apply", "--validate=strict", "-k", deploy+"install")
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, args := range [][]string{
			{"describe", "daemonset,pods"}, {"logs", "-l", "app.kubernetes.io/name=" + own, "--all-containers", "--prefix", "--tail=200"},
		} {
			out, err := try(context.Background(), "kubectl", append([]string{"-n", own}, args...)...)
			t.Logf("%v: %v\n%s", args, err, out)
		}
	})
	rolledOut(t)
	chained(t)
}

func rolledOut(t *testing.T) {
	t.Helper()
	kubectl(t, "-n", own, "rollout", "status", "daemonset/"+own, "--timeout="+patience)
}

// chained waits until the plugin is in the node's chain, once and last.
func chained(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		out, err := try(ctx, "docker", "exec", worker, "jq", "-r", "[.plugins[].type] | join(\" \")", list)
		if err == nil && out != "flannel portmap virt-launcher-net" {
			err = fmt.Errorf("the chain is %s", out)
		}
		return err
	})
}

// onWorker reads a field of the pod of a DaemonSet that runs on the worker.
func onWorker(t *testing.T, namespace, labels, field string) string {
	t.Helper()
	return kubectl(t, "-n", namespace, "get", "pods", "-l", labels, "--field-selector", "spec.nodeName="+worker, "-o", "jsonpath={.items[0]"+field+"}")
}

// The network's own installer writes its list as if nobody else were.
func testNetworkAgain(t *testing.T) {
	kubectl(t, "-n", "kube-system", "delete", "pod", "--wait", onWorker(t, "kube-system", "app=flannel", ".metadata.name"))
	kubectl(t, "-n", "kube-system", "rollout", "status", "daemonset/flannel", "--timeout="+patience)
	chained(t)
}

// renews waits until the guest, whose lease is short, has been answered after the time.
func (v *vm) renews(t *testing.T, since time.Time) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if _, err := try(ctx, "kubectl", "-n", v.namespace, "exec", v.pod, "-c", "launcher", "--", "virt-launcher-net", "wait", "--for=lease", "--timeout=5s"); err != nil {
			return err
		}
		if lease := v.status(t).Lease; lease.State != "bound" || lease.LastMessage.At.Before(since) {
			return fmt.Errorf("the guest does not renew: %+v", lease)
		}
		return nil
	})
}

// An agent that is killed serves again, and nobody notices.
func (v *vm) testAgentKilled(t *testing.T) {
	const agent = `.status.containerStatuses[?(@.name=="agent")]`
	connection := dial(t, v.ip(t))
	kill(t, onWorker(t, own, "app.kubernetes.io/name="+own, agent+".containerID"))
	killed := time.Now()
	client(t, "ping", "-c", "5", "-i", "0.1", "-W", "2", v.ip(t))
	v.renews(t, killed)
	if restarts := onWorker(t, own, "app.kubernetes.io/name="+own, agent+".restartCount"); restarts != "1" {
		t.Errorf("the agent was restarted %s times", restarts)
	}
	if answer := connection.get(t); !strings.HasSuffix(answer, guest) {
		t.Errorf("the connection opened before gives %q", answer)
	}
}

// The same where the DaemonSet is rolled out again.
func (v *vm) testAgentUpgraded(t *testing.T) {
	connection := dial(t, v.ip(t))
	rolledOut(t)
	kubectl(t, "-n", own, "rollout", "restart", "daemonset/"+own)
	rolledOut(t)
	v.renews(t, time.Now())
	if answer := connection.get(t); !strings.HasSuffix(answer, guest) {
		t.Errorf("the connection opened before gives %q", answer)
	}
	if ready := v.get(t, `.status.conditions[?(@.type=="Ready")].status`); ready != "True" {
		t.Errorf("the pod is Ready: %s", ready)
	}
	chained(t)
}

// second calls the plugins of a second network for a pod, as a runtime or Multus does.
const second = `
	dir=/run/virt-launcher-net/$2
	export CNI_COMMAND=$1 CNI_CONTAINERID=$2 CNI_IFNAME=net1 CNI_PATH=/opt/cni/bin
	export CNI_NETNS=$(jq -r .netns $dir/eth0.attachment)
	first='{"cniVersion": "1.0.0", "name": "second", "type": "bridge", "bridge": "second0", "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.99.0.0/24"}}'
	ours='{"cniVersion": "1.0.0", "name": "second", "type": "virt-launcher-net", "select": "all"}'
	if [ $1 = ADD ]; then
		result=$(bridge <<<$first)
		virt-launcher-net <<<$(jq --argjson result "$result" '.prevResult = $result' <<<$ours) >/dev/null
		env -u CNI_COMMAND virt-launcher-net --netns $CNI_NETNS --state-dir $dir --interface net1 check
	else
		virt-launcher-net <<<$ours
		bridge <<<$first
		ip link delete second0
	fi`

// A network that is attached while the VM runs is served by the same agent, and the first
// NIC does not notice.
func (v *vm) testSecondNIC(t *testing.T) {
	call := func(command string) {
		on(t, "env", "PATH=/opt/cni/bin:/usr/bin:/usr/sbin", "bash", "-euo", "pipefail", "-c", second, "second", command, v.sandbox(t))
	}
	names := func() (names []string) {
		for _, s := range v.statuses(t) {
			names = append(names, s.Name)
		}
		return names
	}
	call("ADD")
	if got := names(); !slices.Equal(got, []string{"eth0", "net1"}) {
		t.Errorf("the agent serves %q", got)
	}
	v.reach(t)
	call("DEL")
	if got := names(); !slices.Equal(got, []string{"eth0"}) {
		t.Errorf("the agent serves %q", got)
	}
	v.renews(t, time.Now())
}

// containers are those that the plugin has state of.
func containers(ctx context.Context) (string, error) {
	return try(ctx, "docker", "exec", worker, "find", "/run/virt-launcher-net", "-mindepth", "1", "-maxdepth", "1", "-type", "d")
}

// A VM whose node is drained shuts down, and leaves nothing.
func testDrain(t *testing.T) {
	v := newNodeVM(t, "vm-node-drained", "Never", "", nil)
	v.apply(t)
	v.waitReady(t)
	kubectl(t, "drain", worker, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout="+patience)
	if pods := v.kubectl(t, "get", "pods", "-o", "name"); pods != "" {
		t.Errorf("there are %s", pods)
	}
	noContainers(t)
	kubectl(t, "uncordon", worker)
	kubectl(t, "delete", "namespace", v.namespace)
	apply(t)
}

func noContainers(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		ids, err := containers(ctx)
		if err == nil && ids != "" {
			err = fmt.Errorf("there is state of %s", ids)
		}
		return err
	})
}

// The plugin goes out of the chain at once, and off the node when its last VM has ended,
// which is served until then.
func testRemoval(t *testing.T) {
	v := newNodeVM(t, "vm-node-last", "Never", "", nil)
	v.apply(t)
	v.waitReady(t)
	kubectl(t, "apply", "-k", deploy+"remove")
	eventually(t, func(ctx context.Context) error {
		out, err := try(ctx, "docker", "exec", worker, "cat", list)
		if err == nil && strings.Contains(out, own) {
			err = fmt.Errorf("the list is\n%s", out)
		}
		return err
	})
	kubectl(t, "run", "plain", "--image=localhost/virt-launcher-net/network:test", "--image-pull-policy=Never",
		`--overrides={"spec": {"nodeName": "`+worker+`", "terminationGracePeriodSeconds": 0}}`, "--command", "--", "busybox", "sleep", "infinity")
	waitFor(t, "pod/plain", "condition=Ready")
	kubectl(t, "delete", "pod/plain")
	v.renews(t, time.Now())
	v.reach(t)
	on(t, "test", "-x", plugin)
	if _, err := try(t.Context(), "kubectl", "-n", own, "rollout", "status", "daemonset/"+own, "--timeout=3s"); err == nil {
		t.Error("it is removed, though a VM runs")
	}
	kubectl(t, "delete", "namespace", v.namespace)
	rolledOut(t)
	for _, node := range []string{worker, "virt-launcher-net-control-plane"} {
		if _, err := try(t.Context(), "docker", "exec", node, "test", "-e", plugin); err == nil {
			t.Errorf("%s is there on %s", plugin, node)
		}
	}
	noContainers(t)
	kubectl(t, "delete", "-k", deploy+"remove")
	if files := on(t, "ls", "-A", "/etc/cni/net.d", "/opt/cni/bin"); strings.Contains(files, own) {
		t.Errorf("there is\n%s", files)
	}
}
