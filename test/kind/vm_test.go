package kind

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest/vmtest"
)

const (
	example = "../../examples/vm-pod"
	guest   = "hello from the guest" // its page
	worker  = "virt-launcher-net-worker"
)

// vm is the example's pod in a namespace of its own.
type vm struct {
	namespace string
	overlay   string // the directory of its kustomization
}

// newVM makes an overlay of the example: on the worker, in a namespace, and with
// a guest that gets the pages.
func newVM(t *testing.T, namespace, restartPolicy string, pages ...string) *vm {
	t.Helper()
	v := &vm{namespace: namespace, overlay: t.TempDir()}
	base, err := filepath.Abs(example)
	if err != nil {
		t.Fatal(err)
	}
	if base, err = filepath.Rel(v.overlay, base); err != nil {
		t.Fatal(err)
	}
	v.write(t, "kustomization.yaml", fmt.Sprintf(`
resources: [%s]
namespace: %s
patches:
  - target: {kind: Pod}
    patch: |
      - {op: add, path: /spec/nodeName, value: %s}
      - {op: replace, path: /spec/restartPolicy, value: %s}
configMapGenerator:
  - {name: vm-launcher, behavior: merge, files: [vm.xml]}
`, base, namespace, worker, restartPolicy))
	xml, err := os.ReadFile(filepath.Join(example, "launcher", "vm.xml"))
	if err != nil {
		t.Fatal(err)
	}
	words := "<cmdline>"
	for _, page := range pages {
		words += "vln.get=" + page + " "
	}
	v.write(t, "vm.xml", strings.Replace(string(xml), "<cmdline>", words, 1))
	kubectl(t, "create", "namespace", namespace)
	t.Cleanup(func() {
		if t.Failed() {
			v.logAll(t)
		}
	})
	return v
}

func (v *vm) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(v.overlay, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logAll prints what there is to know of a pod that failed the test.
func (v *vm) logAll(t *testing.T) {
	for _, args := range [][]string{
		{"describe", "pod", "vm"},
		{"logs", "vm", "-c", "virt-launcher-net"},
		{"logs", "vm", "-c", "virt-launcher-net", "--previous"},
		{"logs", "vm", "-c", "launcher"},
	} {
		out, err := try(context.Background(), "kubectl", append([]string{"-n", v.namespace}, args...)...)
		t.Logf("%s %v: %v\n%s", v.namespace, args, err, out)
	}
}

func (v *vm) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return kubectl(t, append([]string{"-n", v.namespace}, args...)...)
}

func (v *vm) apply(t *testing.T) {
	t.Helper()
	v.kubectl(t, "apply", "-k", v.overlay)
}

func (v *vm) get(t *testing.T, field string) string {
	t.Helper()
	return v.kubectl(t, "get", "pod/vm", "-o", "jsonpath={"+field+"}")
}

func (v *vm) waitReady(t *testing.T) {
	t.Helper()
	v.kubectl(t, "wait", "--for=condition=Ready", "--timeout="+patience, "pod/vm")
}

func (v *vm) ip(t *testing.T) string {
	t.Helper()
	return v.get(t, ".status.podIP")
}

// program runs the program in its container.
func (v *vm) program(t *testing.T, args ...string) string {
	t.Helper()
	return v.kubectl(t, append([]string{"exec", "vm", "-c", "virt-launcher-net", "--", "/virt-launcher-net"}, args...)...)
}

// report waits until the guest has done what it was asked, and returns what it
// says of itself.
func (v *vm) report(t *testing.T) vmtest.Report {
	t.Helper()
	log := filepath.Join(t.TempDir(), "console")
	eventually(t, func(ctx context.Context) error {
		text, err := try(ctx, "kubectl", "-n", v.namespace, "logs", "vm", "-c", "launcher")
		if err != nil {
			return err
		}
		if !strings.Contains(text, "VLN-READY") {
			return fmt.Errorf("the guest is not ready; it printed:\n%s", text)
		}
		return os.WriteFile(log, []byte(text+"\n"), 0o600)
	})
	r, err := vmtest.WaitReport(t.Context(), log)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// reach is how the guest is there for others: at the pod's address and through
// the Service, from another node.
func (v *vm) reach(t *testing.T) {
	t.Helper()
	ip := v.ip(t)
	client(t, "ping", "-c", "2", "-i", "0.2", "-W", "3", ip)
	page(t, "http://"+ip, guest)
	page(t, "http://vm."+v.namespace+".svc.cluster.local", guest)
}

// on runs a command on the worker.
func on(t *testing.T, command ...string) string {
	t.Helper()
	return run(t, "docker", append([]string{"exec", worker}, command...)...)
}

// kill kills the first process of a container, by the name that containerd
// knows it by.
func kill(t *testing.T, id string) {
	t.Helper()
	on(t, "ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", strings.TrimPrefix(id, "containerd://"))
}

// left is what pods leave on a node if they do.
func left(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, command := range []string{"ip -o link show", "ls /run/netns", "ls /sys/fs/bpf", "nft list tables", "ls /run/virt-launcher-net"} {
		out, _ := try(t.Context(), "docker", slices.Concat([]string{"exec", worker}, strings.Fields(command))...) // no such directory
		for line := range strings.Lines(out) {
			all = append(all, strings.TrimSpace(line))
		}
	}
	return all
}

// TestVM follows two VMs in pods, as the example has them, one of which may be
// restarted.
func TestVM(t *testing.T) {
	apply(t)
	service := get(t, "service/kubernetes", ".spec.clusterIP")
	inside := "http://server.default.svc.cluster.local"
	a := newVM(t, "vm-a", "Never", "https://"+service+"/livez", inside)
	b := newVM(t, "vm-b", "Always")
	before := left(t)
	a.apply(t)
	b.apply(t)

	t.Run("ready", func(t *testing.T) {
		a.waitReady(t)
		b.waitReady(t)
		a.checkReady(t)
		b.checkReady(t)
	})
	t.Run("reach", func(t *testing.T) {
		a.reach(t)
		b.reach(t)
		r := a.report(t)
		if s := a.status(t); r.Address.Addr().String() != a.ip(t) || r.MTU != s.MTU {
			t.Errorf("the guest reports %+v, the pod has %s and %+v", r, a.ip(t), s)
		}
		if got := r.Got["https://"+service+"/livez"]; got != "ok" {
			t.Errorf("the API server's Service tells the guest %q", got)
		}
		if got := r.Got[inside]; got != "hello from a pod" {
			t.Errorf("the server's name in the cluster gives the guest %q", got)
		}
	})
	t.Run("restart of the sidecar", a.testRestart)
	t.Run("sandbox made again", b.testSandbox)
	t.Run("pod made again", func(t *testing.T) {
		a.kubectl(t, "delete", "pod/vm")
		a.apply(t)
		a.waitReady(t)
		a.reach(t)
	})
	t.Run("end of the VM", func(t *testing.T) {
		a.kubectl(t, "exec", "vm", "-c", "launcher", "--", "env", "HOME=/run/vm", "XDG_RUNTIME_DIR=/run/vm/run",
			"virsh", "-c", "qemu:///session", "shutdown", "vm")
		a.kubectl(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+patience, "pod/vm")
	})
	t.Run("nothing is left", func(t *testing.T) {
		kubectl(t, "delete", "namespace", a.namespace, b.namespace)
		eventually(t, func(context.Context) error {
			if now := left(t); !slices.Equal(now, before) {
				return fmt.Errorf("the node had\n%s\nand has\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
			}
			return nil
		})
	})
}

// status is what the test needs of what the program says of itself.
type status struct {
	MTU   int
	Lease struct {
		State   string
		Since   time.Time
		Address netip.Prefix
	}
}

func (v *vm) status(t *testing.T) status {
	t.Helper()
	var s struct{ Interfaces []status }
	if err := json.Unmarshal([]byte(v.program(t, "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Interfaces) != 1 {
		t.Fatalf("the program says %+v", s)
	}
	return s.Interfaces[0]
}

// checkReady checks that the pod was not Ready before its guest had its lease.
func (v *vm) checkReady(t *testing.T) {
	t.Helper()
	ready, err := time.Parse(time.RFC3339, v.get(t, `.status.conditions[?(@.type=="Ready")].lastTransitionTime`))
	if err != nil {
		t.Fatal(err)
	}
	lease := v.status(t).Lease
	if lease.State != "bound" || lease.Since.Truncate(time.Second).After(ready) {
		t.Errorf("the pod is Ready since %v, the lease %+v", ready, lease)
	}
	if lease.Address.Addr().String() != v.ip(t) {
		t.Errorf("the lease is %+v, the pod's address %s", lease, v.ip(t))
	}
}

// A sidecar that is killed serves again, and the guest's connections stay.
func (v *vm) testRestart(t *testing.T) {
	connection := dial(t, v.ip(t))
	kill(t, v.get(t, ".status.initContainerStatuses[0].containerID"))
	client(t, "ping", "-c", "5", "-i", "0.1", "-W", "2", v.ip(t)) // while nobody serves
	v.kubectl(t, "wait", "--for=jsonpath={.status.initContainerStatuses[0].restartCount}=1", "--timeout="+patience, "pod/vm")
	v.waitReady(t)
	v.program(t, "wait", "--for=lease", "--timeout=10s")
	if answer := connection.get(t); !strings.HasSuffix(answer, guest) {
		t.Errorf("the connection opened before gives %q", answer)
	}
	v.reach(t)
	if restarts := v.get(t, ".status.containerStatuses[0].restartCount"); restarts != "0" {
		t.Errorf("the launcher was restarted %s times", restarts)
	}
}

// A pod whose sandbox dies gets another network: the sidecar must not take up
// what it did in the first.
func (v *vm) testSandbox(t *testing.T) {
	before, address := v.sandbox(t), v.ip(t)
	kill(t, before)
	v.kubectl(t, "wait", "--for=condition=Ready=false", "--timeout="+patience, "pod/vm")
	v.waitReady(t)
	if now := v.sandbox(t); now == before {
		t.Errorf("the sandbox is still %s", now)
	}
	t.Logf("the pod's address was %s and is %s", address, v.ip(t))
	v.checkReady(t)
	v.reach(t)
}

// sandbox is the name that containerd knows the pod's running sandbox by.
func (v *vm) sandbox(t *testing.T) string {
	t.Helper()
	running := on(t, "ctr", "-n", "k8s.io", "tasks", "list")
	for id := range strings.Lines(on(t, "ctr", "-n", "k8s.io", "containers", "list", "--quiet",
		`labels."io.kubernetes.pod.uid"==`+v.get(t, ".metadata.uid")+`,labels."io.cri-containerd.kind"==sandbox`)) {
		if id = strings.TrimSpace(id); strings.Contains(running, id) {
			return id
		}
	}
	t.Fatal("the pod has no running sandbox")
	return ""
}
