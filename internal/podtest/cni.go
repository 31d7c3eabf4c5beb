package podtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// Attachment is an interface in a pod that a real CNI plugin made.
type Attachment struct {
	// Result is what the plugin answered.
	Result current.Result

	node   *NS
	plugin string
	conf   []byte
	env    []string
}

// AddCNI has a CNI plugin make the interface ifName in the pod. The network's
// configuration is that of one plugin (CNI specification 1.0, section 3, JSON
// with cniVersion and name); the plugin and those it delegates to are
// executables in pluginDir and run in the node's namespace.
func AddCNI(ctx context.Context, node, pod *NS, conf []byte, pluginDir, ifName string) (*Attachment, error) {
	var network types.NetConf
	if err := json.Unmarshal(conf, &network); err != nil {
		return nil, fmt.Errorf("read network configuration: %w", err)
	}
	a := &Attachment{
		node:   node,
		plugin: filepath.Join(pluginDir, network.Type),
		conf:   conf,
		env: append(os.Environ(),
			"CNI_CONTAINERID=podtest-"+filepath.Base(pod.Path()),
			"CNI_NETNS="+pod.Path(),
			"CNI_IFNAME="+ifName,
			"CNI_PATH="+pluginDir),
	}
	answer, err := a.exec(ctx, "ADD")
	if err == nil {
		err = json.Unmarshal([]byte(answer), &a.Result)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("add pod to network %s: %w", network.Name, err), a.Delete(context.WithoutCancel(ctx)))
	}
	return a, nil
}

// Delete has the plugin take the interface away again.
func (a *Attachment) Delete(ctx context.Context) error {
	if _, err := a.exec(ctx, "DEL"); err != nil {
		return fmt.Errorf("delete pod from network: %w", err)
	}
	return nil
}

func (a *Attachment) exec(ctx context.Context, command string) (string, error) {
	cmd := a.node.Command(ctx, a.plugin)
	cmd.Env = append(slices.Clone(a.env), "CNI_COMMAND="+command)
	cmd.Stdin = bytes.NewReader(a.conf)
	return output(cmd, a.plugin, []string{command})
}

// flannelConf is what flannel's plugin, on a node with the subnet
// 10.244.1.0/24 of 10.244.0.0/16 over VXLAN, delegates to the bridge plugin.
// The argument is host-local's data directory.
const flannelConf = `{
  "cniVersion": "1.0.0",
  "name": "cbr0",
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
    "ranges": [[{"subnet": "10.244.1.0/24"}]],
    "routes": [{"dst": "10.244.0.0/16"}]
  }
}`

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
	pod, err := NewNode(ctx)
	if err != nil {
		return nil, err
	}
	pod.Shape = Flannel
	if err := pod.addFlannel(ctx, pluginDir, stateDir); err != nil {
		return nil, errors.Join(fmt.Errorf("build flannel pod: %w", err), pod.Close())
	}
	return pod, nil
}

func (p *Pod) addFlannel(ctx context.Context, pluginDir, stateDir string) error {
	conf := fmt.Appendf(nil, flannelConf, filepath.Join(stateDir, "networks"))
	attachment, err := AddCNI(ctx, p.Node, p.Pod, conf, pluginDir, "eth0")
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
		if p.IP, err = netip.ParsePrefix(ip.Address.String()); err != nil {
			return err
		}
		p.Gateway, _ = netip.AddrFromSlice(ip.Gateway.To4())
	}
	return nil
}
