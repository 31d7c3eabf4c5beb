package podtest

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// podSees is what ip(8) says in the pod: "ip route" and "ip neigh", each line
// without the spaces at its end.
var podSees = map[Shape]string{
	Flannel: `default via 10.244.1.1 dev eth0
10.244.0.0/16 via 10.244.1.1 dev eth0
10.244.1.0/24 dev eth0 proto kernel scope link src 10.244.1.7
`,
	BridgeCNI: `default via 10.22.0.1 dev eth0
10.22.0.0/24 dev eth0 proto kernel scope link src 10.22.0.7
`,
	Kindnet: `default via 10.244.0.1 dev eth0
10.244.0.0/24 via 10.244.0.1 dev eth0 src 10.244.0.2
10.244.0.1 dev eth0 scope link src 10.244.0.2
`,
	GKE: `default via 10.8.2.1 dev eth0
10.8.2.0/24 via 10.8.2.1 dev eth0 src 10.8.2.2
10.8.2.1 dev eth0 scope link src 10.8.2.2
`,
	GKEClassE: `default via 240.8.2.1 dev eth0
240.8.2.0/24 via 240.8.2.1 dev eth0 src 240.8.2.2
240.8.2.1 dev eth0 scope link src 240.8.2.2
`,
	AWSIPv6: `default via 169.254.172.1 dev v4if0
169.254.172.0/22 via 169.254.172.1 dev v4if0 src 169.254.172.10
169.254.172.1 dev v4if0 scope link src 169.254.172.10
fe80::1 dev eth0 lladdr de:6f:18:a9:04:c6 PERMANENT
`,
	Calico: `default via 169.254.1.1 dev eth0
169.254.1.1 dev eth0 scope link
`,
	Cilium: `default via 10.0.1.240 dev eth0 mtu 1450
10.0.1.240 dev eth0 scope link
`,
	AWS: `default via 169.254.1.1 dev eth0
169.254.1.1 dev eth0 scope link
169.254.1.1 dev eth0 lladdr de:6f:18:a9:04:c1 PERMANENT
`,
	Azure: `default via 169.254.1.1 dev eth0
169.254.1.1 dev eth0 scope link
169.254.1.1 dev eth0 lladdr aa:aa:aa:aa:aa:aa PERMANENT
`,
	L2: ``,
}

// answersARP tells whether somebody answers ARP for the gateway.
var answersARP = map[Shape]bool{
	Flannel: true, BridgeCNI: true, BridgeDual: true, Kindnet: true, KindnetDual: true, GKE: true, GKEClassE: true,
	Calico: true, CalicoDual: true, Cilium: true, AWS: false, Azure: true,
}

// ownsGateway tells whether the gateway's address is the node's.
var ownsGateway = map[Shape]bool{
	Flannel: true, BridgeCNI: true, BridgeDual: true, Kindnet: true, KindnetDual: true, GKE: true, GKEClassE: true, Cilium: true,
}

func TestShapes(t *testing.T) {
	t.Parallel()
	for _, shape := range Shapes() {
		t.Run(string(shape), func(t *testing.T) {
			pod := NewPod(t, shape)
			checkLink(t, pod)
			if want, ok := podSees[shape]; ok {
				got := trimLines(pod.Run(t, "ip", "route") + pod.Run(t, "ip", "neigh"))
				if got != want {
					t.Errorf("pod sees:\n%swant:\n%s", got, want)
				}
			}
			if !pod.IPv4.IsValid() {
				return
			}
			if _, err := pod.Output(t.Context(), "busybox", "arping", "-f", "-w1", "-I", "eth0", pod.Gateway.String()); (err == nil) != answersARP[shape] {
				t.Errorf("ARP for the gateway answered: %v, want %v", err == nil, answersARP[shape])
			}
			if ownsGateway[shape] {
				reach(t, pod.NS, pod.Gateway)
			}
			reach(t, pod.NS, OutsideIP)
			reach(t, pod.Node, pod.IPv4.Addr())
			reach(t, pod.Outside, pod.IPv4.Addr())
			if pod.IPv6.IsValid() {
				reach(t, pod.NS, OutsideIPv6)
				reach(t, pod.Outside, pod.IPv6.Addr())
			}
		})
	}
}

func TestUnknownShape(t *testing.T) {
	t.Parallel()
	if _, err := BuildPod(t.Context(), "nosuch"); err == nil || !strings.Contains(err.Error(), `"nosuch"`) {
		t.Errorf("BuildPod of an unknown shape: %v", err)
	}
}

// What the real plugins make is what the shape says.
func TestFlannelPod(t *testing.T) {
	t.Parallel()
	stateDir := t.TempDir()
	pod, err := BuildFlannelPod(t.Context(), Built(t, "cni"), stateDir)
	requireNS(t, err)
	closed := false
	defer func() {
		if !closed {
			pod.Close()
		}
	}()
	checkLink(t, pod)
	addr := pod.IPv4.Addr().String()
	got := strings.ReplaceAll(trimLines(pod.Run(t, "ip", "route")), "src "+addr, "src 10.244.1.7")
	if got != podSees[Flannel] {
		t.Errorf("pod sees:\n%swant:\n%s", got, podSees[Flannel])
	}
	ping(t, pod.NS, pod.Gateway)
	ping(t, pod.Outside, pod.IPv4.Addr())
	if out := pod.Node.Run(t, "bridge", "-d", "link", "show", "dev", pod.NodeLink); !strings.Contains(out, "hairpin on") || !strings.Contains(out, "master cni0") {
		t.Errorf("node's end of the pod's veth pair: %s", out)
	}
	lease := filepath.Join(stateDir, "networks", "cbr0", addr)
	if _, err := os.Stat(lease); err != nil {
		t.Errorf("host-local's lease: %v", err)
	}
	closed = true
	if err := pod.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(lease); !os.IsNotExist(err) {
		t.Errorf("after Close, host-local's lease: %v, want none", err)
	}
}

// checkLink compares what the pod says of itself with ip(8)'s view.
func checkLink(t *testing.T, pod *Pod) {
	t.Helper()
	var links []struct {
		Address  string `json:"address"`
		MTU      int    `json:"mtu"`
		AddrInfo []struct {
			Family string     `json:"family"`
			Local  netip.Addr `json:"local"`
			Bits   int        `json:"prefixlen"`
			Scope  string     `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(pod.Run(t, "ip", "-j", "addr", "show", "dev", pod.Interface)), &links); err != nil {
		t.Fatal(err)
	}
	var v4, v6 netip.Prefix
	for _, a := range links[0].AddrInfo {
		if a.Scope != "global" {
			continue
		}
		if a.Family == "inet" {
			v4 = netip.PrefixFrom(a.Local, a.Bits)
		} else {
			v6 = netip.PrefixFrom(a.Local, a.Bits)
		}
	}
	if links[0].Address != pod.MAC.String() || links[0].MTU != pod.MTU || v4 != pod.IPv4 || v6 != pod.IPv6 {
		t.Errorf("ip addr: MAC %s, MTU %d, %s, %s; pod: MAC %s, MTU %d, %s, %s",
			links[0].Address, links[0].MTU, v4, v6, pod.MAC, pod.MTU, pod.IPv4, pod.IPv6)
	}
	if out := pod.Node.Run(t, "ip", "-d", "link", "show", "dev", pod.NodeLink); !strings.Contains(out, "veth") {
		t.Errorf("node's end %s: %s", pod.NodeLink, out)
	}
}

// reach is ping, of which some may be lost while a neighbor is looked for.
func reach(t *testing.T, from interface {
	Run(t testing.TB, name string, args ...string) string
}, to netip.Addr,
) {
	t.Helper()
	from.Run(t, "ping", "-c", "3", "-i", "0.2", "-W", "5", to.String())
}

func ping(t *testing.T, from interface {
	Run(t testing.TB, name string, args ...string) string
}, to netip.Addr,
) {
	t.Helper()
	from.Run(t, "ping", "-c", "1", "-W", "5", to.String())
}

func trimLines(text string) string {
	return strings.ReplaceAll(text, " \n", "\n")
}
