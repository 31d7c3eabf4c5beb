package inside

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// network is where a pod interface is connected to: a link of a namespace that gets the
// gateway's addresses. The zero value: nobody is there.
type network struct {
	*podtest.NS
	link string
}

// route makes it a router: a guest forgets one that says, when it is asked for its MAC, that
// it is none.
func (n network) route(t *testing.T) {
	t.Helper()
	if err := n.Sysctl("net/ipv6/conf/all/forwarding", "1"); err != nil {
		t.Fatal(err)
	}
}

// uplink is a kind of pod interface.
type uplink struct {
	// connect makes eth0 in a pod that has none.
	connect func(t *testing.T, p *podtest.Pod) network
	// refused is what a datapath, by its name, says of the link instead of taking it.
	refused map[string]string
}

// What datapaths say of more than one kind of link.
const (
	noARP      = "it does not resolve neighbors (ARP is off), so the VM would find no gateway; set the CNI to veth, or netkit to L2 mode"
	noMAC      = "it is a netkit without a MAC address: a VM needs an Ethernet link (with netkit devices set the CNI to veth or to netkit's L2 mode)"
	noEthernet = "it is a wireguard without Ethernet frames"
	ipvlan     = "it is an ipvlan: it has its parent's MAC and delivers by IP address"
)

// uplinks are those that need a kernel module, or a kernel, which the machine that runs
// the other tests may not have.
var uplinks = map[string]uplink{
	"vlan": {connect: func(t *testing.T, p *podtest.Pod) network {
		p.Node.IP(t, "link add link "+parent(t, p)+" name eth0 netns "+p.Path()+" type vlan id 7")
		p.Outside.IP(t, "link add link parent0 name parent0.7 type vlan id 7")
		return network{p.Outside, "parent0.7"}
	}},
	"macvlan": {
		connect: onParent(podtest.Macvlan),
		refused: map[string]string{"bridge": "it is a macvlan: its parent delivers only frames for its own MAC"},
	},
	"ipvlan-l2": {
		connect: onParent("type ipvlan mode l2"),
		refused: map[string]string{"bridge": ipvlan},
	},
	"ipvlan-l3": {
		connect: onParent("type ipvlan mode l3"),
		refused: map[string]string{
			"bridge": ipvlan,
			redirect: "it is an ipvlan in mode L3 or L3S, which does not resolve neighbors (ARP is off)",
		},
	},
	"bond": {connect: func(t *testing.T, p *podtest.Pod) network {
		p.Node.IP(t,
			"link add up0 "+podtest.Switch,
			"link add port0 type veth peer name eth1 netns "+p.Path(), "link set port0 master up0 up",
			"link add port1 type veth peer name eth2 netns "+p.Path(), "link set port1 master up0 up")
		p.IP(t, "link add eth0 type bond mode active-backup miimon 100", "link set eth1 master eth0", "link set eth2 master eth0")
		return network{p.Node, "up0"}
	}},
	"bond-member": {
		connect: func(t *testing.T, p *podtest.Pod) network {
			p.Node.IP(t, "link add up0 type veth peer name eth0 netns "+p.Path())
			p.IP(t, "link add bond0 type bond mode active-backup", "link set eth0 master bond0", "link set bond0 up")
			return network{p.Node, "up0"}
		},
		refused: map[string]string{
			"bridge": "it already is a port of the bridge or a member of the bond or VRF bond0; take it out (ip link set eth0 nomaster)",
			redirect: "it belongs to bond0, a bridge, bond or VRF, which gets its frames",
		},
	},
	"vrf-member": {
		connect: func(t *testing.T, p *podtest.Pod) network {
			p.Node.IP(t, "link add up0 type veth peer name eth0 netns "+p.Path())
			p.IP(t, "link add vrf0 type vrf table 10", "link set vrf0 up", "link set eth0 master vrf0")
			return network{p.Node, "up0"}
		},
		refused: map[string]string{
			"bridge": "it already is a port of the bridge or a member of the bond or VRF vrf0; take it out (ip link set eth0 nomaster)",
			redirect: "it belongs to vrf0, a bridge, bond or VRF, which gets its frames",
		},
	},
	"netkit-l2": {connect: netkit(netlink.NETKIT_MODE_L2)},
	"netkit-l3": {
		connect: netkit(netlink.NETKIT_MODE_L3),
		refused: map[string]string{"bridge": noMAC, redirect: noMAC},
	},
	"wireguard": {
		connect: func(t *testing.T, p *podtest.Pod) network {
			p.IP(t, "link add eth0 type wireguard")
			return network{}
		},
		refused: map[string]string{"bridge": noEthernet, redirect: noEthernet},
	},
	"dummy": {
		connect: func(t *testing.T, p *podtest.Pod) network {
			p.IP(t, "link add eth0 type dummy")
			return network{}
		},
		refused: map[string]string{"bridge": noARP, redirect: noARP},
	},
	"dummy-arp": {connect: func(t *testing.T, p *podtest.Pod) network {
		p.IP(t, "link add eth0 type dummy", "link set eth0 arp on")
		return network{}
	}},
}

// parent makes a link on the node for others to be on, to a host's parent0.
func parent(t *testing.T, p *podtest.Pod) string {
	t.Helper()
	p.Node.IP(t, "link add parent0 type veth peer name parent0 netns "+p.Outside.Path(), "link set parent0 up")
	p.Outside.IP(t, "link set parent0 up")
	return "parent0"
}

// onParent makes eth0 a child of a link of the node.
func onParent(kind string) func(*testing.T, *podtest.Pod) network {
	return func(t *testing.T, p *podtest.Pod) network {
		p.Node.IP(t, "link add link "+parent(t, p)+" name eth0 netns "+p.Path()+" "+kind)
		return network{p.Outside, "parent0"}
	}
}

// netkit makes eth0 one of a pair of netkit devices, which ip(8) of Debian 12 does not
// know.
func netkit(mode netlink.NetkitMode) func(*testing.T, *podtest.Pod) network {
	return func(t *testing.T, p *podtest.Pod) network {
		pod, err := os.Open(p.Path())
		if err != nil {
			t.Fatal(err)
		}
		defer pod.Close()
		link, peer := netlink.NewLinkAttrs(), netlink.NewLinkAttrs()
		link.Name, peer.Name, peer.Namespace = "up0", "eth0", netlink.NsFd(pod.Fd())
		pair := &netlink.Netkit{LinkAttrs: link, Mode: mode}
		pair.SetPeerAttrs(&peer)
		err = p.Node.Do(func() error { return netlink.LinkAdd(pair) })
		if errors.Is(err, unix.EOPNOTSUPP) && olderThan(t, 6, 7) {
			t.Skip("netkit devices came with Linux 6.7")
		}
		if err != nil {
			t.Fatal(err)
		}
		return network{p.Node, "up0"}
	}
}

// olderThan tells whether the kernel is older than a version.
func olderThan(t *testing.T, major, minor int) bool {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	var x, y int
	if _, err := fmt.Sscanf(string(release), "%d.%d", &x, &y); err != nil {
		t.Fatalf("kernel %s: %v", release, err)
	}
	return x < major || x == major && y < minor
}

// TestUplinks has a VM on each kind of pod interface, or is told why not.
func TestUplinks(t *testing.T) {
	eachDatapath(t, func(t *testing.T, datapath string) {
		for _, name := range slices.Sorted(maps.Keys(uplinks)) {
			u := uplinks[name]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				pod, there := u.pod(t)
				v := newVM(t, pod, datapath)
				if why := u.refused[datapath]; why != "" {
					v.refused(t, why)
					return
				}
				if there {
					v.Serve(t)
				} else {
					v.Serve(t, "--no-check")
				}
				v.plugGuest(t)
				v.lease(t)
				if there {
					v.reach(t)
				} else {
					v.leaves(t)
				}
				v.restore(t)
			})
		}
	})
}

// pod makes one with that kind of interface. there tells whether somebody is on its
// network.
func (u uplink) pod(t *testing.T) (p *podtest.Pod, there bool) {
	t.Helper()
	const gateway, gateway6 = "198.51.100.1", "2001:db8:7::1"
	p = podtest.NewBarePod(t)
	p.Interface = "eth0"
	p.IPv4 = netip.MustParsePrefix("198.51.100.20/24")
	n := u.connect(t, p)
	p.IP(t, "addr add "+p.IPv4.String()+" brd + dev eth0", "link set eth0 up", "route add default via "+gateway+" dev eth0")
	if n.NS != nil { // else nobody advertises a router
		n.route(t)
		p.IPv6 = netip.MustParsePrefix("2001:db8:7::20/64")
		n.IP(t, "addr add "+gateway+"/24 dev "+n.link, "addr add "+gateway6+"/64 dev "+n.link+" nodad", "link set "+n.link+" up")
		p.IP(t, "addr add "+p.IPv6.String()+" dev eth0 nodad", "route add default via "+gateway6+" dev eth0")
	}
	p.In(t, func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			p.MAC = link.HardwareAddr
		}
		return err
	})
	return p, n.NS != nil
}

// refused fails the test unless the program refuses the pod in such words, and leaves it
// as it is.
func (v *vm) refused(t *testing.T, why string) {
	t.Helper()
	for _, verb := range []string{"plan", "prepare"} {
		if out, err := v.Output(t, verb); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q; it printed %s", verb, err, why, out)
		}
	}
	v.unchanged(t, "a refusal")
}

// leaves fails the test unless what the guest sends leaves by the pod's dummy.
func (v *vm) leaves(t *testing.T) {
	t.Helper()
	_, line, _ := strings.Cut(v.pod.Run(t, "ip", "-o", "link", "show", "type", "dummy"), ": ")
	name, _, _ := strings.Cut(line, ":")
	capture := podtest.StartCapture(t, v.pod.NS, name, "arp")
	_, _ = v.guest.Output(t.Context(), "ping", "-c1", "-W1", podtest.OutsideIP.String()) // nobody answers
	capture.Wait("who-has 198.51.100.1 tell " + v.pod.IPv4.Addr().String())
	capture.Stop() // else the link stays promiscuous
}
