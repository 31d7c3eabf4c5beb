package cniplugin_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// On its own, without a plugin before it, it finds the pod's interface and reports what
// the pod has, in every version; done again it reports the same, and changes nothing.
func TestAlone(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, datapath := range datapaths {
			t.Run(version+"/"+datapath, func(t *testing.T) {
				t.Parallel()
				pod, err := podtest.BuildFlannelDualPod(t.Context(), podtest.Built(t, "cni"), t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = pod.Close() })
				r := newRuntime(t, pod.Node)
				list, rt := r.list(version, plugin(`"select": "all"`, `"capabilities": {"dns": true}`, `"datapath": "`+datapath+`"`)), sandbox(pod.NS, "c1", "net1", nil)
				before := settled(t, pod.NS)
				result := r.add(list, rt)
				if names := interfaces(result); !slices.Equal(names, []string{"eth0 in the pod", "tap-eth0 in the pod"}) {
					t.Errorf("the result has %q", names)
				}
				if mac := macOf(t, result, "eth0"); !slices.Equal(mac, pod.MAC) {
					t.Errorf("eth0 has %s", mac)
				}
				var addresses, gateways []string
				for _, ip := range result.IPs {
					addresses, gateways = append(addresses, ip.Address.String()), append(gateways, ip.Gateway.String())
					if ip.Interface == nil || *ip.Interface != 0 {
						t.Errorf("%s is of interface %v", ip, ip.Interface)
					}
				}
				if want := []string{pod.IPv4.String(), pod.IPv6.String()}; !slices.Equal(addresses, want) {
					t.Errorf("addresses %q, want %q", addresses, want)
				}
				if want := []string{pod.Gateway.String(), pod.IPv6Gateway.String()}; !slices.Equal(gateways, want) {
					t.Errorf("gateways %q, want %q", gateways, want)
				}
				var routes []string
				for _, route := range result.Routes {
					routes = append(routes, route.Dst.String()+" "+route.GW.String())
				}
				for _, want := range []string{"0.0.0.0/0 " + pod.Gateway.String(), "::/0 " + pod.IPv6Gateway.String(), "10.244.0.0/16 " + pod.Gateway.String()} {
					if !contains(routes, want) {
						t.Errorf("no route %q in %q", want, routes)
					}
				}
				if dns := result.DNS; !slices.Equal(dns.Nameservers, []string{"10.96.0.10"}) || !slices.Equal(dns.Search, []string{"svc.cluster.local"}) {
					t.Errorf("DNS is %v", dns)
				}
				a := r.attached("c1", "eth0")
				if a.Pod.Namespace != "default" || a.Pod.Name != "vm-c1" || a.Pod.UID != "uid-c1" || string(a.Options["hostname"]) != `"vm-c1"` || string(a.Options["dns"]) != "[\n      \"10.96.0.10\"\n    ]" {
					t.Errorf("the agent finds %+v", a)
				}
				prepared := settled(t, pod.NS)
				if again := r.add(list, rt); !reflect.DeepEqual(again, result) {
					t.Errorf("a second ADD has another result:\n%v\n%v", again, result)
				}
				same(t, "a second ADD changes", prepared, pod.NS)
				if version != "0.3.1" {
					if err := r.check(list, rt); err != nil {
						t.Error(err)
					}
				}
				r.del(list, rt)
				r.empty()
				same(t, "afterwards", before, pod.NS)
			})
		}
	}
}

// The interface that the plugin before says it has made is meant, and no other: where it
// is none of the pod's, as that of a driver in user space, the pod's own is not taken.
func TestInterfaceOfPluginBefore(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	made := &types100.Result{CNIVersion: "1.0.0", Interfaces: []*types100.Interface{{Name: "net1", Sandbox: pod.Path()}}}
	list := r.alone(r.list("1.0.0", plugin()), plugin(`"select": "all"`, `"timeout": "200ms"`), made)
	_, err := r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "net1", nil))
	wantError(t, err, types.ErrTryAgainLater, "net1")
	r.empty()
	same(t, "it changes", before, pod.NS)
}

// Pods are touched that ask for it, and no others.
func TestSelect(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	list := r.list("1.0.0", plugin(capabilities))
	for name, annotations := range map[string]map[string]string{"none": {}, "others": {"example.org/x": "y"}, "false": {"virt-launcher-net/vm": "false"}} {
		rt := sandbox(pod.NS, "c1", "eth0", annotations)
		if result := r.add(list, rt); len(result.Interfaces) != 0 {
			t.Errorf("%s: the result has %q", name, interfaces(result))
		}
		if err := r.check(list, rt); err != nil {
			t.Errorf("%s: CHECK: %v", name, err)
		}
		r.del(list, rt)
	}
	// containerd passes null for a pod that has none.
	rt := sandbox(pod.NS, "c1", "eth0", nil)
	rt.CapabilityArgs["io.kubernetes.cri.pod-annotations"] = map[string]string(nil)
	r.add(list, rt)
	// What is wrong with options is no matter of pods without a VM.
	r.add(r.list("1.0.0", plugin(capabilities, `"mtu": "x"`, `"unknown": 1`)), rt)
	r.empty()
	same(t, "it was touched", before, pod.NS)

	_, err := r.tryAdd(t.Context(), r.list("1.0.0", plugin()), sandbox(pod.NS, "c1", "eth0", isVM))
	wantError(t, err, 100, `"capabilities": {"io.kubernetes.cri.pod-annotations": true`, `"select": "all"`)
	_, err = r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", nil))
	wantError(t, err, 100, "containerd 1.5")
	_, err = r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", map[string]string{"virt-launcher-net/vm": "yes"}))
	wantError(t, err, 101, "virt-launcher-net/vm", `"yes": want true or false`)
	r.empty()
}

// The pod's own options are in the place of the node's, but for those that are the
// node's alone.
func TestAnnotation(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	with := func(config string) map[string]string {
		all := maps.Clone(isVM)
		all["virt-launcher-net/config"] = config
		return all
	}
	list := r.list("1.1.0", plugin(capabilities, `"datapath": "redirect"`, `"tapName": "tap0"`, `"tapOwner": "107:4242"`,
		`"dns": {"nameservers": ["192.0.2.53"], "search": ["example.org"]}`))
	rt := sandbox(pod.NS, "c1", "eth0", with(`{"podPorts": "8080", "tapName": "tap1", "hostname": "db", "leaseTime": "1h"}`))
	r.add(list, rt)
	if out := pod.Run(t, "ip", "-d", "link", "show", "tap1"); !strings.Contains(out, "user 107 group 4242") {
		t.Errorf("the tap is %s", out)
	}
	var got map[string]any
	b, err := os.ReadFile(filepath.Join(r.base, "c1", "eth0.attachment"))
	if err == nil {
		err = json.Unmarshal(b, &got)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"datapath": "redirect", "podPorts": "8080", "tapName": "tap1", "tapOwner": "107:4242", "hostname": "db", "leaseTime": "1h",
		"dns": []any{"192.0.2.53"}, "search": []any{"example.org"},
	}
	if !reflect.DeepEqual(got["options"], want) {
		t.Errorf("options %v, want %v", got["options"], want)
	}
	r.del(list, rt)
	for config, text := range map[string]string{
		`{`:                             "want a JSON object",
		`[]`:                            "want a JSON object",
		`{"mtu": "x"}`:                  "mtu: \"x\": want a whole number",
		`{"unknown": 1}`:                "unknown is not an option",
		`{"stateDir": "/tmp"}`:          "a pod may not set stateDir",
		`{"select": "all"}`:             "a pod may not set select",
		`{"guard": "off"}`:              "a pod may not set guard: the node's network configuration does, or lists it in allowedOptions",
		`{"selinuxContext": "u:r:t"}`:   "a pod may not set selinuxContext",
		`{"mac": "02:00:00:00:00:01"}`:  "a pod may not set mac",
		`{"interface": "eth0"}`:         "a pod may not set interface",
		`{"dhcpOption": "252=x;43=0x"}`: "",
		`{"hostname": "a_b"}`:           `"a_b" is not a host name`,
		`{"hostname": "` + strings.Repeat("x", 64) + `"}`: "it has a label longer than 63 bytes",
		`{"tapName": "a-name-too-long-by-far"}`:           "is not an interface name",
	} {
		_, err := r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", with(config)))
		if text == "" {
			if err != nil {
				t.Errorf("%s: %v", config, err)
			}
			r.del(list, rt)
			continue
		}
		e, ok := errors.AsType[*types.Error](err)
		if !ok || !strings.Contains(e.Details, text) || e.Code != 101 && e.Code != 102 {
			t.Errorf("%s: got %v, want %q", config, err, text)
		}
	}
	allowed := r.list("1.1.0", plugin(capabilities, `"allowedOptions": ["guard"]`))
	r.add(allowed, sandbox(pod.NS, "c1", "eth0", with(`{"guard": "off"}`)))
	r.del(allowed, rt)
	_, err = r.tryAdd(t.Context(), allowed, sandbox(pod.NS, "c1", "eth0", with(`{"mtu": 1400}`)))
	wantError(t, err, 101, "a pod may not set mtu")
	r.empty()
	same(t, "afterwards", before, pod.NS)
}

// What the node has for all pods gives way to other ports of a pod, and to another datapath,
// as far as the pod may set it.
func TestPortsGiveWay(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	for _, c := range []struct {
		node   string
		config string
		want   []string // of these, in their order
	}{
		{`"datapath": "redirect", "podPorts": "9100"`, `{"vmPorts": "22"}`, []string{"datapath", "vmPorts"}},
		{`"datapath": "redirect", "vmPorts": "22"`, `{"podPorts": "9100"}`, []string{"datapath", "podPorts"}},
		{`"datapath": "redirect", "podPorts": "9100"`, `{"datapath": "redirect", "mtu": 1400}`, []string{"datapath", "podPorts"}},
		{`"datapath": "redirect", "podPorts": "9100", "vmAlias": "169.254.100.2"`, `{"datapath": "bridge"}`, []string{"datapath"}},
		{`"bridgeName": "br0", "uplinkName": "up0"`, `{"datapath": "redirect", "podPorts": "9100"}`, []string{"datapath", "podPorts"}},
		{`"bridgeName": "br0", "uplinkName": "up0"`, `{"datapath": "bridge"}`, []string{"datapath", "bridgeName", "uplinkName"}},
		{`"datapath": "redirect", "podPorts": "9100", "allowedOptions": ["vmPorts"]`, `{"vmPorts": "22"}`, nil},
	} {
		list := r.list("1.0.0", plugin(capabilities, c.node))
		rt := sandbox(pod.NS, "c1", "eth0", map[string]string{"virt-launcher-net/vm": "true", "virt-launcher-net/config": c.config})
		if _, err := r.tryAdd(t.Context(), list, rt); c.want == nil {
			wantError(t, err, 102, "name only one of both")
			continue
		} else if err != nil {
			t.Errorf("%s, %s: %v", c.node, c.config, err)
			continue
		}
		var got []string
		options := r.attached("c1", "eth0").Options
		for _, name := range []string{"datapath", "podPorts", "vmPorts", "vmAlias", "bridgeName", "uplinkName"} {
			if options[name] != nil {
				got = append(got, name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s, %s: the options are %q, want %q", c.node, c.config, got, c.want)
		}
		r.del(list, rt)
	}
	r.empty()
}

// What is wrong is told by CNI's codes and in words, and nothing is left.
func TestErrors(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	before := settled(t, pod.NS)
	for _, c := range []struct {
		keys  []string
		code  uint
		texts []string
	}{
		{[]string{`"mtuu": 1400`}, types.ErrUnsupportedField, []string{"mtuu: 1400", "mtu,", "select"}},
		{[]string{`"mtu": 0`}, types.ErrInvalidNetworkConfig, []string{"mtu: 0: want a whole number"}},
		{[]string{`"ipam": {"type": "host-local"}`}, types.ErrInvalidNetworkConfig, []string{"ipam", "assigns no addresses"}},
		{[]string{`"timeout": "x"`}, types.ErrInvalidNetworkConfig, []string{"timeout", "such as 30s"}},
		{[]string{`"logLevel": "loud"`}, types.ErrInvalidNetworkConfig, []string{"logLevel"}},
		{[]string{`"select": "some"`}, types.ErrInvalidNetworkConfig, []string{"select", "annotation or all"}},
		{[]string{`"allowedOptions": ["x"]`}, types.ErrInvalidNetworkConfig, []string{"x is not an option"}},
		{[]string{`"interface": "nope0"`, `"timeout": "2s"`}, types.ErrTryAgainLater, []string{"nope0"}},
		{[]string{`"interface": "../x"`}, types.ErrInvalidNetworkConfig, []string{"is not an interface name"}},
		{[]string{`"interface": "lo"`}, 102, []string{"lo"}},
		{[]string{`"interface": "eth0"`, `"bridgeName": "eth0"`}, 102, []string{"eth0"}},
		{[]string{`"podPorts": "80"`}, 102, []string{"redirect"}},
		{[]string{`"hostname": "-x"`}, types.ErrInvalidNetworkConfig, []string{`"-x" is not a host name`}},
		{[]string{`"selinuxContext": "container_t"`}, types.ErrInvalidNetworkConfig, []string{`"container_t" is not an SELinux context`}},
		{[]string{`"selinuxContext": "system_u:system_r:container_t:s0"`}, 102, []string{"SELinux is off"}},
	} {
		keys := append([]string{`"select": "all"`}, c.keys...)
		if strings.HasPrefix(c.keys[0], `"select"`) {
			keys = c.keys
		}
		list := r.list("1.0.0", plugin(keys...))
		_, err := r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", nil))
		if wantError(t, err, c.code, c.texts...); t.Failed() {
			t.Log(c.keys)
		}
		r.empty()
		if c.keys[0] == `"select": "some"` {
			list = r.list("1.0.0", plugin(`"select": "all"`))
		}
		if err := r.tryDel(list, sandbox(pod.NS, "c1", "eth0", nil)); err != nil {
			t.Errorf("%s keeps a pod from ending: %v", c.keys, err)
		}
		list = r.list("1.0.0", plugin(append([]string{capabilities}, c.keys...)...))
		if _, err := r.tryAdd(t.Context(), list, sandbox(pod.NS, "c1", "eth0", map[string]string{})); err != nil && c.keys[0] != `"select": "some"` {
			t.Errorf("%s keeps a pod without a VM from starting: %v", c.keys, err)
		}
	}
	same(t, "afterwards", before, pod.NS)
	list := r.list("1.0.0", plugin(`"select": "all"`))
	_, err := r.tryAdd(t.Context(), list, sandbox(pod.Node, "c1", "eth0", nil))
	wantError(t, err, types.ErrInvalidEnvironmentVariables, "CNI_NETNS", "is the plugin's own")
	rt := sandbox(pod.NS, "c1", "eth0", nil)
	rt.NetNS = "/run/nope"
	_, err = r.tryAdd(t.Context(), list, rt)
	wantError(t, err, types.ErrInvalidEnvironmentVariables, "CNI_NETNS", "/run/nope")
	rt.NetNS = "/etc/hostname"
	_, err = r.tryAdd(t.Context(), list, rt)
	wantError(t, err, types.ErrInvalidEnvironmentVariables, "CNI_NETNS", "not a network namespace")
	r.empty()
}

// The VM's DNS is the pod's, from whoever knows it, and never the node's.
func TestDNS(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	asked := func(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) string {
		r.add(list, rt)
		defer r.del(list, rt)
		options := r.attached(rt.ContainerID, "eth0").Options
		text := string(options["dns"]) + string(options["search"])
		return strings.Join(strings.Fields(text), "")
	}
	rt := sandbox(pod.NS, "c1", "eth0", isVM)
	list := r.list("1.0.0", plugin(capabilities))
	rt.CapabilityArgs["dns"] = map[string]any{"servers": []string{"127.0.0.53", "192.0.2.53", "x"}, "searches": []string{"a.example"}}
	if got := asked(list, rt); got != `["192.0.2.53"]["a.example"]` {
		t.Errorf("of the runtime: %s", got)
	}
	if log := r.log.String(); !strings.Contains(log, "127.0.0.53") || !strings.Contains(log, "server=x") {
		t.Errorf("what is left out is not told:\n%s", log)
	}
	delete(rt.CapabilityArgs, "dns")
	if got := asked(list, rt); got != "" {
		t.Errorf("of nobody: %s", got)
	}
	before := r.list("1.0.0", plugin(capabilities, `"prevResult": {"cniVersion": "1.0.0", "dns": {"nameservers": ["192.0.2.54"], "search": ["b.example"]}}`))
	if got := asked(before, rt); got != `["192.0.2.54"]["b.example"]` {
		t.Errorf("of the plugin before: %s", got)
	}
	rt.ContainerID = "virt-launcher-net-test-" + filepath.Base(t.TempDir()) + rand.Text() // CRI-O writes it here
	dir := filepath.Join("/run/containers/storage/overlay-containers", rt.ContainerID)
	if err := os.MkdirAll(filepath.Join(dir, "userdata"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "userdata/resolv.conf"), []byte("nameserver 192.0.2.55\nsearch c.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := asked(before, rt); got != `["192.0.2.55"]["c.example"]` {
		t.Errorf("of CRI-O: %s", got)
	}
}

// What is attached later is later, also where the clock was set back meanwhile: the first
// one's NIC has the VM's default route.
func TestClockSetBack(t *testing.T) {
	t.Parallel()
	pod, r := newPod(t, podtest.Flannel)
	options := plugin(`"select": "all"`)
	first, second := r.list("1.1.0", options), r.list("1.1.0", `{"type": "ptp", `+hostLocal+`}, `+options)
	second.Name = "second"
	r.add(first, sandbox(pod.NS, "c1", "eth0", nil))
	path := filepath.Join(r.base, "c1/eth0.attachment")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var a attachment.Attachment
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	a.Since = a.Since.Add(time.Hour)
	if b, err = json.Marshal(a); err == nil {
		err = os.WriteFile(path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.add(second, sandbox(pod.NS, "c1", "net1", nil))
	all, err := attachment.OfContainer(r.base, "c1")
	if err != nil || len(all) != 2 || all[0].Interface != "eth0" || !all[0].Since.Before(all[1].Since) {
		t.Errorf("attached are %+v, %v", all, err)
	}
}
