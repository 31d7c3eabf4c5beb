package cniplugin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// The capability by which a runtime passes annotations, as in a configuration.
const capabilities = `"capabilities": {"io.kubernetes.cri.pod-annotations": true, "dns": true}`

// runtime calls plugins as a container runtime does: by libcni, with its cache, in the
// node's network namespace.
type runtime struct {
	t     *testing.T
	node  *podtest.NS
	cni   *libcni.CNIConfig
	base  string // of the plugin's state
	local string // of host-local's
	cache string // of libcni's
	log   podtest.Buffer
}

func newRuntime(t *testing.T, node *podtest.NS) *runtime {
	t.Helper()
	dir := t.TempDir()
	r := &runtime{t: t, node: node, base: filepath.Join(dir, "state"), local: filepath.Join(dir, "networks"), cache: filepath.Join(dir, "cache")}
	path := []string{podtest.Built(t, "cni"), filepath.Dir(podtest.Built(t, "virt-launcher-net"))}
	exec := &invoke.DefaultExec{RawExec: &invoke.RawExec{Stderr: &r.log}, PluginDecoder: version.PluginDecoder{}}
	r.cni = libcni.NewCNIConfigWithCacheDir(path, r.cache, exec)
	return r
}

// newPod is a pod, and a runtime that calls plugins for it.
func newPod(t *testing.T, shape podtest.Shape) (*podtest.Pod, *runtime) {
	t.Helper()
	pod := podtest.NewPod(t, shape)
	return pod, newRuntime(t, pod.Node)
}

// list is a configuration list of a version, in which STATE is the plugin's directory
// and LOCAL host-local's.
func (r *runtime) list(version, plugins string) *libcni.NetworkConfigList {
	r.t.Helper()
	text := strings.NewReplacer("STATE", r.base, "LOCAL", r.local).Replace(fmt.Sprintf(`{"cniVersion": %q, "name": "net", "plugins": [%s]}`, version, plugins))
	list, err := libcni.NetworkConfFromBytes([]byte(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return list
}

// alone is the plugin as it is called in a list after others, which had this result.
func (r *runtime) alone(list *libcni.NetworkConfigList, plugin string, result *types100.Result) *libcni.NetworkConfigList {
	r.t.Helper()
	answer, err := result.GetAsVersion(list.CNIVersion)
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := json.Marshal(answer)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.list(list.CNIVersion, strings.TrimSuffix(plugin, "}")+`, "prevResult": `+string(text)+`}`)
}

// macOf is the MAC of an interface in a result.
func macOf(t *testing.T, r *types100.Result, name string) net.HardwareAddr {
	t.Helper()
	for _, i := range r.Interfaces {
		if i.Name == name {
			mac, err := net.ParseMAC(i.Mac)
			if err != nil {
				t.Fatal(err)
			}
			return mac
		}
	}
	t.Fatalf("no %s in %v", name, r)
	return nil
}

// plugin is the plugin's part of a list, with further keys.
func plugin(keys ...string) string {
	return `{` + strings.Join(append([]string{`"type": "virt-launcher-net"`, `"stateDir": "STATE"`}, keys...), ", ") + `}`
}

// hostLocal assigns addresses of 10.88.0.0/24.
const hostLocal = `"ipam": {"type": "host-local", "dataDir": "LOCAL", "ranges": [[{"subnet": "10.88.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}`

// sandbox is how a runtime calls a pod whose annotations these are; nil: it passes none.
func sandbox(ns *podtest.NS, id, ifName string, annotations map[string]string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: id, NetNS: ns.Path(), IfName: ifName,
		Args:           [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", "vm-" + id}, {"K8S_POD_UID", "uid-" + id}},
		CapabilityArgs: map[string]any{"dns": map[string]any{"Servers": []string{"10.96.0.10"}, "Searches": []string{"svc.cluster.local"}, "Options": []string{"ndots:5"}}},
	}
	if annotations != nil {
		rt.CapabilityArgs["io.kubernetes.cri.pod-annotations"] = annotations
	}
	return rt
}

// isVM are the annotations of a VM's pod.
var isVM = map[string]string{"virt-launcher-net/vm": "true"}

func (r *runtime) tryAdd(ctx context.Context, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (result *types100.Result, err error) {
	err = r.node.Do(func() error {
		answer, err := r.cni.AddNetworkList(ctx, list, rt)
		if err != nil {
			return err
		}
		result, err = types100.GetResult(answer)
		return err
	})
	return result, err
}

func (r *runtime) add(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	r.t.Helper()
	result, err := r.tryAdd(r.t.Context(), list, rt)
	if err != nil {
		r.t.Fatal(err)
	}
	return result
}

func (r *runtime) check(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return r.node.Do(func() error { return r.cni.CheckNetworkList(context.Background(), list, rt) })
}

func (r *runtime) tryDel(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	return r.node.Do(func() error { return r.cni.DelNetworkList(context.Background(), list, rt) })
}

func (r *runtime) del(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) {
	r.t.Helper()
	if err := r.tryDel(list, rt); err != nil {
		r.t.Fatal(err)
	}
}

// forget forgets what libcni remembers.
func (r *runtime) forget() {
	r.t.Helper()
	if err := os.RemoveAll(r.cache); err != nil {
		r.t.Fatal(err)
	}
}

// files are what is in the plugin's directory, of all containers.
func (r *runtime) files() (names []string) {
	r.t.Helper()
	err := filepath.WalkDir(r.base, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			name, _ := filepath.Rel(r.base, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	return names
}

// empty fails the test if the plugin has left something of a container.
func (r *runtime) empty() {
	r.t.Helper()
	entries, err := os.ReadDir(r.base)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			r.t.Errorf("it is left: %s, %q", e.Name(), r.files())
		}
	}
}

// attached is the attachment's file of a container's interface.
func (r *runtime) attached(id, name string) (a struct {
	Pod     struct{ Namespace, Name, UID string }
	Options map[string]json.RawMessage
},
) {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.base, id, name+".attachment"))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// interfaces are those of a result by name, with their sandbox's being there.
func interfaces(r *types100.Result) (names []string) {
	for _, i := range r.Interfaces {
		names = append(names, i.Name+map[bool]string{true: " in the pod"}[i.Sandbox != ""])
	}
	return names
}

// wantError fails the test if err is not a CNI error of that code, with the texts.
func wantError(t *testing.T, err error, code uint, texts ...string) {
	t.Helper()
	e, ok := errors.AsType[*types.Error](err)
	if !ok || e.Code != code {
		t.Errorf("got %v (%#v), want an error of code %d", err, err, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(e.Msg+"; "+e.Details, text) {
			t.Errorf("no %q in: %s; %s", text, e.Msg, e.Details)
		}
	}
}

// settled is a snapshot of a pod.
func settled(t *testing.T, ns *podtest.NS) string { return podtest.TakeSnapshot(t, ns) }

// same fails the test if a pod is not as it was.
func same(t *testing.T, when, was string, ns *podtest.NS) {
	t.Helper()
	if d := podtest.Diff(was, settled(t, ns)); d != "" {
		t.Errorf("%s:\n%s", when, d)
	}
}

var datapaths = []string{podtest.SwitchPath, "redirect"}

func contains(all []string, one string) bool { return slices.Contains(all, one) }
