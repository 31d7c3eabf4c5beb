package cniplugin_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// Behind the plugins that make an interface, and before others, a VM gets it, and it is
// put back before they take it away.
func TestChain(t *testing.T) {
	t.Parallel()
	const veth = "veth in the node"
	for _, c := range []struct {
		name, before, after string
		interfaces          []string // that the plugins before make
		check               string   // what their CHECK says without the plugin, too
	}{
		{
			name: "switch", before: `{` + podtest.SwitchPlugin + `"cni1", "isGateway": true, ` + hostLocal + `}`,
			interfaces: []string{"cni1", veth, "eth0 in the pod"},
		},
		{name: "ptp", before: `{"type": "ptp", "mtu": 1400, ` + hostLocal + `}`, interfaces: []string{veth, "eth0 in the pod"}},
		{name: "ptp, dual stack", interfaces: []string{veth, "eth0 in the pod"}, before: `{"type": "ptp", "ipam": {"type": "host-local", "dataDir": "LOCAL",
			"ranges": [[{"subnet": "10.88.0.0/24"}], [{"subnet": "fd00:88::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}`},
		{
			name: "ptp, bandwidth and tuning", interfaces: []string{veth, "eth0 in the pod", veth},
			before: `{"type": "ptp", ` + hostLocal + `}, {"type": "bandwidth", "ingressRate": 100000000, "ingressBurst": 8000000,
				"egressRate": 100000000, "egressBurst": 8000000}, {"type": "tuning", "mtu": 1300}`,
		},
		{
			name: "ptp and sbr", before: `{"type": "ptp", ` + hostLocal + `}, {"type": "sbr"}`, interfaces: []string{veth, "eth0 in the pod"},
			check: "Failed to find Gateway", // which sbr has moved
		},
		{
			name: "ptp, then tuning", before: `{"type": "ptp", ` + hostLocal + `}`, after: `, {"type": "tuning", "sysctl": {"net.ipv4.conf.all.arp_filter": "0"}}`,
			interfaces: []string{veth, "eth0 in the pod"},
		},
	} {
		for _, datapath := range datapaths {
			t.Run(c.name+"/"+datapath, func(t *testing.T) {
				t.Parallel()
				pod := podtest.NewBarePod(t)
				r := newRuntime(t, pod.Node)
				ours := plugin(capabilities, `"datapath": "`+datapath+`"`)
				list, rt := r.list("1.0.0", c.before+", "+ours+c.after), sandbox(pod.NS, "c1", "eth0", isVM)
				empty := settled(t, pod.NS)
				others := r.list("1.0.0", c.before+c.after)
				r.add(others, rt)
				if err := r.check(others, rt); (err == nil) != (c.check == "") {
					t.Errorf("CHECK without the plugin: %v", err)
				}
				r.del(others, rt)
				result := r.add(list, rt)
				names := interfaces(result)
				for i, name := range names {
					if name != "cni1" && !strings.Contains(name, " ") {
						names[i] = veth
					}
				}
				if want := append(c.interfaces, "tap-eth0 in the pod"); !slices.Equal(names, want) {
					t.Errorf("the result has %q, want %q", interfaces(result), want)
				}
				for _, ip := range result.IPs {
					if ip.Interface == nil || result.Interfaces[*ip.Interface].Name != "eth0" {
						t.Errorf("%s is of interface %v", ip, ip.Interface)
					}
				}
				tap := result.Interfaces[len(result.Interfaces)-1]
				if link := pod.Run(t, "ip", "link", "show", tap.Name); !strings.Contains(link, tap.Mac) || !strings.Contains(link, "mtu "+strconv.Itoa(tap.Mtu)) {
					t.Errorf("the result has the tap %s, the pod\n%s", tap, link)
				}
				guest := podtest.NewPlainGuest(t, pod.NS, tap.Name, macOf(t, result, "eth0"))
				guest.Run(t, "ip", "addr", "add", result.IPs[0].Address.String(), "dev", "eth0")
				guest.Run(t, "ip", "link", "set", "eth0", "up")
				guest.Run(t, "ping", "-c3", "-i0.2", "-W20", "10.88.0.1")

				want := c.check
				if datapath == podtest.SwitchPath { // they want to see the veth that they have made
					want = "not of type veth"
				}
				if err := r.check(list, rt); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("CHECK of all: %v, want %q", err, want)
				}
				alone := r.alone(list, ours, result)
				if err := r.check(alone, rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				r.del(list, rt)
				r.empty()
				same(t, "afterwards", empty, pod.NS)
				if left := pod.Node.Run(t, "ip", "-br", "link"); strings.Contains(left, "veth") {
					t.Errorf("the node has\n%s", left)
				}
				r.del(list, rt)
			})
		}
	}
}

// A device of the node goes back to it.
func TestLentDevice(t *testing.T) {
	t.Parallel()
	for _, datapath := range datapaths {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			pod := podtest.NewBarePod(t)
			pod.Node.IP(t, "link add dev0 address 02:00:00:00:00:70 type veth peer name wire", "link set wire up")
			r := newRuntime(t, pod.Node)
			list := r.list("1.0.0", `{"type": "host-device", "device": "dev0", "ipam": {"type": "static", "addresses": [{"address": "10.88.0.7/24", "gateway": "10.88.0.1"}]}},`+
				plugin(capabilities, `"datapath": "`+datapath+`"`))
			rt := sandbox(pod.NS, "c1", "eth0", isVM)
			r.add(list, rt)
			r.del(list, rt)
			r.empty()
			if link := pod.Node.Run(t, "ip", "link", "show", "dev0"); !strings.Contains(link, "02:00:00:00:00:70") {
				t.Errorf("the node has %s", link)
			}
			if log := r.log.String(); strings.Contains(log, "the pod can't be deleted") {
				t.Errorf("it warns of what DEL avoids:\n%s", log)
			}
		})
	}
}
