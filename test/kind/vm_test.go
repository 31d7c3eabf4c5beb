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
	examples = "../../examples/vm-pod"
	guest    = "hello from the guest" // its page
	worker   = "virt-launcher-net-worker"
)

// vm is the pod of an example in a namespace of its own.
type vm struct {
	namespace string
	pod       string   // its name
	overlay   string   // the directory of its kustomization
	program   []string // the container that has the program, and its path there
}

// self is a Service that leads to the pod from the start, so that the guest can use it
// when it boots.
const self = `
apiVersion: v1
kind: Service
metadata: {name: self}
spec:
  publishNotReadyAddresses: true
  selector: {app.kubernetes.io/name: %s}
  ports: [{name: vm, port: 80}, {name: app, port: 8080}]
`

// newVM makes an overlay of an example, a directory below examples, whose pod has
// this name: on the worker, in a namespace, and with a guest that gets the pages.
func newVM(t *testing.T, example, pod, namespace, restartPolicy string, pages ...string) *vm {
	t.Helper()
	return newPatchedVM(t, example, pod, namespace, restartPolicy, nil, pages...)
}

// newPatchedVM is newVM whose pod is changed besides, by operations of JSON Patch.
func newPatchedVM(t *testing.T, example, pod, namespace, restartPolicy string, patches []string, pages ...string) *vm {
	t.Helper()
	v := &vm{namespace: namespace, pod: pod, overlay: t.TempDir(), program: []string{"virt-launcher-net", "/virt-launcher-net"}}
	base, err := filepath.Abs(filepath.Join(examples, example))
	if err != nil {
		t.Fatal(err)
	}
	if base, err = filepath.Rel(v.overlay, base); err != nil {
		t.Fatal(err)
	}
	patch := ""
	for _, operation := range patches {
		patch += "      - " + operation + "\n"
	}
	v.write(t, "kustomization.yaml", fmt.Sprintf(`
resources: [%s, self.yaml]
namespace: %s
images:
  - {name: busybox, newName: localhost/virt-launcher-net/network, newTag: test}
configMapGenerator:
  - {name: vm-launcher, behavior: merge, files: [vm.xml]}
patches:
  - target: {kind: Pod}
    patch: |
      - {op: add, path: /spec/nodeName, value: %s}
      - {op: replace, path: /spec/restartPolicy, value: %s}
%s`, base, namespace, worker, restartPolicy, patch))
	v.write(t, "self.yaml", fmt.Sprintf(self, pod))
	xml, err := os.ReadFile(filepath.Join(examples, "launcher", "vm.xml"))
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
		{"describe", "pod", v.pod},
		{"logs", v.pod, "-c", "virt-launcher-net"},
		{"logs", v.pod, "-c", "virt-launcher-net", "--previous"},
		{"logs", v.pod, "-c", "launcher"},
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
	return v.kubectl(t, "get", "pod/"+v.pod, "-o", "jsonpath={"+field+"}")
}

func (v *vm) waitReady(t *testing.T) {
	t.Helper()
	v.kubectl(t, "wait", "--for=condition=Ready", "--timeout="+patience, "pod/"+v.pod)
}

func (v *vm) ip(t *testing.T) string {
	t.Helper()
	return v.get(t, ".status.podIP")
}

// in runs a command in a container of the pod.
func (v *vm) in(t *testing.T, container string, command ...string) string {
	t.Helper()
	return v.kubectl(t, append([]string{"exec", v.pod, "-c", container, "--"}, command...)...)
}

// run runs the program in the pod.
func (v *vm) run(t *testing.T, args ...string) string {
	t.Helper()
	return v.in(t, v.program[0], slices.Concat(v.program[1:], args)...)
}

// end has the guest shut down, after which the pod has succeeded.
func (v *vm) end(t *testing.T) {
	t.Helper()
	v.in(t, "launcher", "env", "HOME=/run/vm", "XDG_RUNTIME_DIR=/run/vm/run", "virsh", "-c", "qemu:///session", "shutdown", "vm")
	v.kubectl(t, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout="+patience, "pod/"+v.pod)
}

// report waits until the guest has done what it was asked, and returns what it
// says of itself.
func (v *vm) report(t *testing.T) vmtest.Report {
	t.Helper()
	log := filepath.Join(t.TempDir(), "console")
	eventually(t, func(ctx context.Context) error {
		text, err := try(ctx, "kubectl", "-n", v.namespace, "logs", v.pod, "-c", "launcher")
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

// service is the name of a Service of the example in the cluster.
func (v *vm) service(name string) string { return name + "." + v.namespace + ".svc.cluster.local" }

// reach is how the guest is there for others: at the pod's address and through
// the Service, from another node.
func (v *vm) reach(t *testing.T) {
	t.Helper()
	ip := v.ip(t)
	client(t, "ping", "-c", "2", "-i", "0.2", "-W", "3", ip)
	page(t, "http://"+ip, guest)
	page(t, "http://"+v.service(v.pod), guest)
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

// nothingIsLeft deletes VMs, after which the node has what it had before.
func nothingIsLeft(t *testing.T, before []string, vms ...*vm) {
	t.Helper()
	remove := []string{"delete", "namespace"}
	for _, v := range vms {
		remove = append(remove, v.namespace)
	}
	kubectl(t, remove...)
	eventually(t, func(context.Context) error {
		if now := left(t); !slices.Equal(now, before) {
			return fmt.Errorf("the node had\n%s\nand has\n%s", strings.Join(before, "\n"), strings.Join(now, "\n"))
		}
		return nil
	})
}

// status is what the test needs of what the program says of itself.
type status struct {
	Name  string `json:"interface"`
	MTU   int
	Lease struct {
		State       string
		Since       time.Time
		Address     netip.Prefix
		LastMessage struct{ At time.Time }
	}
}

func (v *vm) status(t *testing.T) status {
	t.Helper()
	all := v.statuses(t)
	if len(all) != 1 {
		t.Fatalf("the program says %+v", all)
	}
	return all[0]
}

// statuses are those of all NICs.
func (v *vm) statuses(t *testing.T) []status {
	t.Helper()
	var s struct{ Interfaces []status }
	if err := json.Unmarshal([]byte(v.run(t, "status", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	return s.Interfaces
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
