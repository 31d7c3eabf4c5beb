package cniplugin_test

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Ports of the node are the VM's by the plugin portmap, and those that stay the pod's are
// the pod's, on a node that forwards nothing but what the plugin firewall lets pass.
// Whichever of them is called before the plugin.
func TestPortmapAndFirewall(t *testing.T) {
	t.Parallel()
	const (
		network   = `{` + podtest.SwitchPlugin + `"cni1", "isGateway": true, "hairpinMode": true, ` + dualStack + `}, `
		bandwidth = `, {"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000, "egressRate": 100000000, "egressBurst": 8000000}`
	)
	for _, backend := range []string{"iptables", "nftables"} {
		others := `{"type": "portmap", "backend": "` + backend + `", "capabilities": {"portMappings": true}}, {"type": "firewall", "backend": "iptables"}`
		for _, datapath := range datapaths {
			ours := plugin(capabilities, `"datapath": "`+datapath+`"`)
			if datapath == "redirect" {
				ours = plugin(capabilities, `"datapath": "redirect"`, `"podPorts": "9100"`)
			}
			before := network + ours + ", " + others
			if datapath == "redirect" { // by the other, bandwidth finds no veth
				before += bandwidth
			}
			for order, plugins := range map[string]string{"last": network + others + bandwidth + ", " + ours, "before them": before} {
				t.Run(backend+"/"+datapath+"/"+order, func(t *testing.T) {
					t.Parallel()
					testPorts(t, datapath, plugins)
				})
			}
		}
	}
}

func testPorts(t *testing.T, datapath, plugins string) {
	pod := podtest.NewBarePod(t)
	for _, iptables := range []string{"iptables", "ip6tables"} {
		pod.Node.Run(t, iptables, "-P", "FORWARD", "DROP")
		pod.Node.Run(t, iptables, "-N", "CNI-ADMIN") // which firewall asks first
		pod.Node.Run(t, iptables, "-A", "CNI-ADMIN", "-m", "conntrack", "--ctstate", "DNAT", "-j", "ACCEPT")
	}
	r := newRuntime(t, pod.Node)
	list, rt := r.list("1.1.0", plugins), sandbox(pod.NS, "c1", "eth0", isVM)
	rt.CapabilityArgs["portMappings"] = []map[string]any{
		{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
		{"hostPort": 9090, "containerPort": 9100, "protocol": "tcp"},
	}
	empty := settled(t, pod.NS)
	result := r.add(list, rt)
	guest := podtest.NewPlainGuest(t, pod.NS, "tap-eth0", macOf(t, result, "eth0"))
	var addresses []netip.Addr
	for _, ip := range result.IPs {
		address, _ := netip.ParsePrefix(ip.Address.String())
		addresses = append(addresses, address.Addr())
		guest.IP(t, "addr add "+address.String()+" dev eth0"+map[bool]string{true: " nodad"}[address.Addr().Is6()])
	}
	guest.IP(t, "link set eth0 up", "route add default via 10.88.0.1", "route add default via fd00:88::1")
	says(t, guest.NS, ":80", "VM")
	listed := "VM" // who has the port that is the pod's, if one is
	if datapath == "redirect" {
		listed = "pod"
		says(t, pod.NS, ":9100", listed)
	} else {
		says(t, guest.NS, ":9100", listed)
	}
	says(t, pod.Outside, ":7", "outside")

	for _, node := range []string{"192.0.2.1", "2001:db8::1"} {
		for _, from := range []*podtest.NS{pod.Outside, guest.NS} {
			hears(t, from, net.JoinHostPort(node, "8080"), "VM")
			hears(t, from, net.JoinHostPort(node, "9090"), listed)
		}
		if datapath == "redirect" { // a container of the pod
			hears(t, pod.NS, net.JoinHostPort(node, "8080"), "VM")
			hears(t, pod.NS, net.JoinHostPort(node, "9090"), "pod")
		}
	}
	hears(t, pod.Node, "127.0.0.1:8080", "VM")
	for i, outside := range []netip.Addr{podtest.OutsideIP, podtest.OutsideIPv6} {
		hears(t, guest.NS, netip.AddrPortFrom(outside, 7).String(), "outside") // lets them open
		if said, err := hear(t.Context(), pod.Outside, netip.AddrPortFrom(addresses[i], 80).String(), time.Second); err == nil {
			t.Errorf("a node that forwards nothing lets others reach %s: %q", addresses[i], said)
		}
	}

	if err := r.check(list, rt); datapath == "redirect" && err != nil || datapath != "redirect" && (err == nil || !strings.Contains(err.Error(), "not of type veth")) {
		t.Errorf("CHECK: %v", err)
	}
	collect := func(valid ...types.GCAttachment) error {
		return pod.Node.Do(func() error {
			return r.cni.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: valid})
		})
	}
	if err := collect(types.GCAttachment{ContainerID: "c1", IfName: "eth0"}); err != nil {
		t.Errorf("GC: %v", err)
	}
	hears(t, pod.Outside, "192.0.2.1:8080", "VM")
	if err := collect(); err != nil {
		t.Errorf("GC: %v", err)
	}
	r.empty()
	same(t, "after GC", empty, pod.NS)
	r.add(list, rt)
	r.del(list, rt)
	r.empty()
	same(t, "after DEL", empty, pod.NS)
	for _, what := range [][]string{{"ip", "-br", "link"}, {"nft", "list", "ruleset"}} {
		if left := pod.Node.Run(t, what[0], what[1:]...); strings.Contains(left, "veth") || strings.Contains(left, "10.88.0.") || strings.Contains(left, "fd00:88::") {
			t.Errorf("the node has\n%s", left)
		}
	}
}

// dualStack assigns addresses of both families.
const dualStack = `"ipam": {"type": "host-local", "dataDir": "LOCAL", "ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]],
	"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`

// says has a namespace say who it is to all that connect.
func says(t *testing.T, ns *podtest.NS, address, who string) {
	t.Helper()
	listener := ns.Listen(t, address)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, who) // who is not told notices
			_ = conn.Close()
		}
	}()
}

// hear connects from a namespace to an address, and returns what is said there.
func hear(ctx context.Context, ns *podtest.NS, address string, patience time.Duration) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conn net.Conn
	err = ns.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // of TCP, which has deadlines
	all, err := io.ReadAll(conn)
	return string(all), err
}

func hears(t *testing.T, ns *podtest.NS, address, who string) {
	t.Helper()
	if said, err := hear(t.Context(), ns, address, podtest.Patience); err != nil || said != who {
		t.Errorf("%s says %q, want %q: %v", address, said, who, err)
	}
}

// bandwidth wants to see the veth that was made: behind the plugin it finds none by one of
// the datapaths, says so, and the pod is not added.
func TestBandwidthBehind(t *testing.T) {
	t.Parallel()
	pod := podtest.NewBarePod(t)
	r := newRuntime(t, pod.Node)
	list, rt := r.list("1.0.0", `{"type": "ptp", `+hostLocal+`}, `+plugin(capabilities)+
		`, {"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000}`), sandbox(pod.NS, "c1", "eth0", isVM)
	empty := settled(t, pod.NS)
	if _, err := r.tryAdd(t.Context(), list, rt); err == nil || !strings.Contains(err.Error(), "eth0 has no veth peer") {
		t.Errorf("ADD: %v", err)
	}
	if err := r.tryDel(list, rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	r.empty()
	same(t, "afterwards", empty, pod.NS)
}
