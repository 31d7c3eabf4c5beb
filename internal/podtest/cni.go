package podtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Attachment is an interface in a pod that real CNI plugins made.
type Attachment struct {
	// Result is what the plugins answered.
	Result *current.Result

	node    *NS
	cni     *libcni.CNIConfig
	list    *libcni.NetworkConfigList
	runtime *libcni.RuntimeConf
}

// AddCNI has the CNI plugins of a network configuration list (JSON, CNI
// specification 1.0 section 1) make the interface ifName in the pod, as a
// container runtime does. The plugins are executables in pluginDir and run in
// the node's namespace; what libcni remembers is in cacheDir.
func AddCNI(ctx context.Context, node, pod *NS, conflist []byte, pluginDir, cacheDir, ifName string) (*Attachment, error) {
	list, err := libcni.NetworkConfFromBytes(conflist)
	if err != nil {
		return nil, fmt.Errorf("read network configuration: %w", err)
	}
	a := &Attachment{
		node: node,
		cni:  libcni.NewCNIConfigWithCacheDir([]string{pluginDir}, cacheDir, nil),
		list: list,
		runtime: &libcni.RuntimeConf{
			ContainerID: "podtest-" + filepath.Base(pod.Path()), NetNS: pod.Path(), IfName: ifName,
		},
	}
	err = node.Do(func() error { // a plugin is born in the namespace of the thread that starts it
		result, err := a.cni.AddNetworkList(ctx, list, a.runtime)
		if err != nil {
			return err
		}
		a.Result, err = current.GetResult(result)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("add pod to network %s: %w", list.Name, err), a.Delete(context.WithoutCancel(ctx)))
	}
	return a, nil
}

// Check has the plugins say whether the interface is as they made it.
func (a *Attachment) Check(ctx context.Context) error {
	err := a.node.Do(func() error { return a.cni.CheckNetworkList(ctx, a.list, a.runtime) })
	if err != nil {
		return fmt.Errorf("check pod's network: %w", err)
	}
	return nil
}

// Delete has the plugins take the interface away again.
func (a *Attachment) Delete(ctx context.Context) error {
	err := a.node.Do(func() error { return a.cni.DelNetworkList(ctx, a.list, a.runtime) })
	if err != nil {
		return fmt.Errorf("delete pod from network: %w", err)
	}
	return nil
}

// flannelConf is what flannel's plugin, on a node with a subnet of the
// cluster's network over VXLAN, delegates to the bridge plugin. The arguments
// are host-local's data directory, its ranges and its routes.
const flannelConf = `{
  "cniVersion": "1.0.0",
  "name": "cbr0",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "mtu": 1450,
    "isGateway": true,
    "isDefaultGateway": true,
    "hairpinMode": true,
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": %q,
      "ranges": [%s],
      "routes": [%s]
    }
  }]
}`

// The node's subnet, and the cluster's network that it is of.
const (
	flannelRange  = `[{"subnet": "10.244.1.0/24"}]`
	flannelRoute  = `{"dst": "10.244.0.0/16"}`
	flannelRange6 = `[{"subnet": "fd00:10:244:1::/64"}]`
	flannelRoute6 = `{"dst": "fd00:10:244::/48"}`
)

// NewFlannelPod makes a pod of the shape [Flannel] with the real plugins, for
// a test, and closes it at the test's end.
func NewFlannelPod(t testing.TB) *Pod {
	t.Helper()
	pod, err := BuildFlannelPod(t.Context(), Built(t, "cni"), t.TempDir())
	requireNS(t, err)
	closeAfter(t, pod.Close)
	return pod
}

// BuildFlannelPod makes a pod as [BuildPod] does for [Flannel], but has the
// plugins bridge and host-local in pluginDir do it. Their state is in stateDir,
// which the caller removes after closing the pod.
func BuildFlannelPod(ctx context.Context, pluginDir, stateDir string) (*Pod, error) {
	return buildFlannelPod(ctx, pluginDir, stateDir, flannelRange, flannelRoute)
}

// BuildFlannelDualPod is [BuildFlannelPod] in a cluster that has IPv6, too.
func BuildFlannelDualPod(ctx context.Context, pluginDir, stateDir string) (*Pod, error) {
	return buildFlannelPod(ctx, pluginDir, stateDir,
		flannelRange+", "+flannelRange6, flannelRoute+", "+flannelRoute6)
}

func buildFlannelPod(ctx context.Context, pluginDir, stateDir, ranges, routes string) (*Pod, error) {
	pod, err := NewNode(ctx)
	if err != nil {
		return nil, err
	}
	pod.Shape = Flannel
	conf := fmt.Appendf(nil, flannelConf, filepath.Join(stateDir, "networks"), ranges, routes)
	if err := pod.addFlannel(ctx, conf, pluginDir, stateDir); err != nil {
		return nil, errors.Join(fmt.Errorf("build flannel pod: %w", err), pod.Close())
	}
	return pod, nil
}

func (p *Pod) addFlannel(ctx context.Context, conf []byte, pluginDir, stateDir string) error {
	attachment, err := AddCNI(ctx, p.Node, p.NS, conf, pluginDir, filepath.Join(stateDir, "cache"), "eth0")
	if err != nil {
		return err
	}
	p.detach = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		return attachment.Delete(ctx)
	}
	p.Interface, p.MTU = "eth0", 1450
	for _, iface := range attachment.Result.Interfaces {
		switch {
		case iface.Sandbox != "":
			if p.MAC, err = net.ParseMAC(iface.Mac); err != nil {
				return err
			}
		case iface.Name != "cni0":
			p.NodeLink = iface.Name
		}
	}
	for _, ip := range attachment.Result.IPs {
		address, err := netip.ParsePrefix(ip.Address.String())
		if err != nil {
			return err
		}
		if gateway, _ := netip.AddrFromSlice(ip.Gateway); address.Addr().Is6() {
			p.IPv6, p.IPv6Gateway = address, gateway
		} else {
			p.IPv4, p.Gateway = address, gateway.Unmap()
		}
	}
	return nil
}
