package podtest

import "net/netip"

// Shape is the way a CNI leaves a pod.
type Shape string

// The shapes. Their addresses, routes, neighbours and MTUs are those which the
// CNI's default configuration gives; see the layouts for where they come from.
const (
	Flannel     Shape = "flannel"      // bridge with VXLAN's MTU, a wider route to the cluster
	Kindnet     Shape = "kindnet"      // point to point, no connected route
	KindnetDual Shape = "kindnet-dual" // the same with IPv6
	Calico      Shape = "calico"       // /32, a gateway by proxy ARP that nobody owns
	CalicoDual  Shape = "calico-dual"  // the same with IPv6, gateway link-local
	Cilium      Shape = "cilium"       // /32, MTU on the route
	GKE         Shape = "gke"          // point to point, MTU 1460
	GKEClassE   Shape = "gke-class-e"  // the same with an address of 240.0.0.0/4
	AWS         Shape = "aws"          // /32, permanent neighbour as gateway, jumbo frames
	AWSIPv6     Shape = "aws-ipv6"     // IPv6 by eth0; IPv4 by v4if0, with an address of 169.254.0.0/16
	Azure       Shape = "azure"        // /16 without connected route, permanent neighbour as gateway
	BridgeCNI   Shape = "bridge"       // the bridge plugin
	BridgeDual  Shape = "bridge-dual"  // the same with IPv6
	L2          Shape = "l2"           // a secondary network without addresses
)

// Shapes returns all shapes.
func Shapes() []Shape {
	return []Shape{Flannel, Kindnet, KindnetDual, Calico, CalicoDual, Cilium, GKE, GKEClassE, AWS, AWSIPv6, Azure, BridgeCNI, BridgeDual, L2}
}

// layout is what a shape is made of: a veth pair and ip(8) lines on both
// sides. Lines name the pod's interface eth0, the node's end by link, and the pod's
// namespace POD.
type layout struct {
	link    string // node's end of the veth pair
	linkMAC string // empty: the kernel's choice
	mac     string // pod's end
	mtu     int
	address netip.Prefix
	gateway netip.Addr
	v6      netip.Prefix
	v6gw    netip.Addr
	host    []string // on the node, once for all of its pods
	node    []string // before the pod's lines; both ends are down then
	pod     []string
	sysctls map[string]string // in the node
	podSys  map[string]string // in the pod
}

func (s Shape) layout() (layout, bool) {
	switch s {
	case Flannel:
		return bridgeLayout("cni0", 1450, "10.244.1", "route add 10.244.0.0/16 via 10.244.1.1 dev eth0"), true
	case BridgeCNI:
		return bridgeLayout("cni0", 1500, "10.22.0"), true
	case BridgeDual:
		return bridgeDualLayout(), true
	case Kindnet:
		return ptpLayout(1500, "10.244.0"), true
	case GKE:
		return ptpLayout(1460, "10.8.2"), true
	case GKEClassE:
		return ptpLayout(1460, "240.8.2"), true
	case KindnetDual:
		return kindnetDualLayout(), true
	case Calico:
		return calicoLayout(), true
	case CalicoDual:
		return calicoDualLayout(), true
	case Cilium:
		return ciliumLayout(), true
	case AWS:
		return awsLayout(), true
	case AWSIPv6:
		return awsIPv6Layout(), true
	case Azure:
		return azureLayout(), true
	case L2:
		return l2Layout(), true
	}
	return layout{}, false
}

// bridgeLayout is what plugins/main/bridge with isDefaultGateway and
// hairpinMode leaves; flannel delegates to it.
func bridgeLayout(bridge string, mtu int, net string, routes ...string) layout {
	return layout{
		link:    "veth7f3a01c2",
		mac:     "0a:58:0a:f4:01:07",
		mtu:     mtu,
		address: netip.MustParsePrefix(net + ".7/24"),
		gateway: netip.MustParseAddr(net + ".1"),
		host: []string{
			"link add " + bridge + " type bridge",
			"addr add " + net + ".1/24 brd + dev " + bridge,
		},
		node: []string{
			"link set veth7f3a01c2 master " + bridge,
			"link set veth7f3a01c2 type bridge_slave hairpin on",
			"link set " + bridge + " up",
		},
		pod: append([]string{
			"addr add " + net + ".7/24 brd + dev eth0",
			"link set eth0 up",
			"route add default via " + net + ".1 dev eth0",
		}, routes...),
	}
}

func bridgeDualLayout() layout {
	l := bridgeLayout("cni0", 1500, "10.22.0")
	l.v6, l.v6gw = netip.MustParsePrefix("fd00:10:22::7/64"), netip.MustParseAddr("fd00:10:22::1")
	l.host = append(l.host, "addr add fd00:10:22::1/64 dev cni0")
	l.pod = append(l.pod,
		"addr add fd00:10:22::7/64 dev eth0 nodad",
		"route add default via fd00:10:22::1 dev eth0")
	return l
}

// ptpLayout is what plugins/main/ptp with host-local leaves: the connected
// route is replaced by two through the gateway.
func ptpLayout(mtu int, net string) layout {
	return layout{
		link:    "veth2c9e44d1",
		mac:     "0a:58:0a:f4:00:02",
		mtu:     mtu,
		address: netip.MustParsePrefix(net + ".2/24"),
		gateway: netip.MustParseAddr(net + ".1"),
		node: []string{
			"addr add " + net + ".1/32 dev veth2c9e44d1",
			"link set veth2c9e44d1 up",
			"route add " + net + ".2/32 dev veth2c9e44d1 scope host",
		},
		pod: []string{
			"addr add " + net + ".2/24 brd + dev eth0",
			"link set eth0 up",
			"route del " + net + ".0/24 dev eth0",
			"route add " + net + ".1/32 dev eth0 scope link src " + net + ".2",
			"route add " + net + ".0/24 via " + net + ".1 dev eth0 src " + net + ".2",
			"route add default via " + net + ".1 dev eth0",
		},
	}
}

func kindnetDualLayout() layout {
	l := ptpLayout(1500, "10.244.0")
	l.v6, l.v6gw = netip.MustParsePrefix("fd00:10:244::2/64"), netip.MustParseAddr("fd00:10:244::1")
	l.node = append(l.node,
		"addr add fd00:10:244::1/128 dev "+l.link,
		"route add fd00:10:244::2/128 dev "+l.link)
	l.pod = append(l.pod,
		"addr add fd00:10:244::2/64 dev eth0 nodad noprefixroute",
		"route add fd00:10:244::1/128 dev eth0",
		"route add fd00:10:244::/64 via fd00:10:244::1 dev eth0 src fd00:10:244::2",
		"route add default via fd00:10:244::1 dev eth0")
	return l
}

// calicoLayout is what cni-plugin/pkg/dataplane/linux leaves: routes first,
// then the address; the node answers ARP for whatever it has a route to.
func calicoLayout() layout {
	const link = "cali1a2b3c4d5e6"
	return layout{
		link:    link,
		linkMAC: "ee:ee:ee:ee:ee:ee",
		mac:     "0a:58:c0:a8:4f:05",
		mtu:     1450,
		address: netip.MustParsePrefix("192.168.79.5/32"),
		gateway: netip.MustParseAddr("169.254.1.1"),
		node: []string{
			"link set " + link + " up",
			"route add 192.168.79.5/32 dev " + link + " scope link",
		},
		pod: []string{
			"link set eth0 up",
			"route add 169.254.1.1/32 dev eth0 scope link",
			"route add default via 169.254.1.1 dev eth0",
			"addr add 192.168.79.5/32 dev eth0",
		},
		sysctls: map[string]string{
			"net/ipv4/conf/" + link + "/proxy_arp":    "1",
			"net/ipv4/conf/" + link + "/forwarding":   "1",
			"net/ipv4/neigh/" + link + "/proxy_delay": "0",
		},
	}
}

func calicoDualLayout() layout {
	l := calicoLayout()
	// The node's end gets this link-local address from its MAC.
	l.v6, l.v6gw = netip.MustParsePrefix("fd79::5/128"), netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")
	l.node = append(l.node, "route add fd79::5/128 dev "+l.link)
	l.pod = append(l.pod,
		"route add default via fe80::ecee:eeff:feee:eeee dev eth0",
		"addr add fd79::5/128 dev eth0")
	l.sysctls["net/ipv6/conf/"+l.link+"/proxy_ndp"] = "1"
	l.podSys = map[string]string{"net/ipv6/conf/eth0/accept_dad": "0"}
	return l
}

// ciliumLayout has the router's address on a device of the node. The real
// one answers ARP in BPF; the pod sees no difference.
func ciliumLayout() layout {
	return layout{
		link:    "lxc8e51f0a7b3c2",
		mac:     "0a:58:0a:00:01:5d",
		mtu:     1500,
		address: netip.MustParsePrefix("10.0.1.93/32"),
		gateway: netip.MustParseAddr("10.0.1.240"),
		host: []string{
			"link add cilium_host type bridge",
			"addr add 10.0.1.240/32 dev cilium_host",
			"link set cilium_host up",
		},
		node: []string{
			"link set lxc8e51f0a7b3c2 up",
			"route add 10.0.1.93/32 dev lxc8e51f0a7b3c2",
		},
		pod: []string{
			"link set eth0 up",
			"addr add 10.0.1.93/32 dev eth0",
			"route add 10.0.1.240/32 dev eth0 scope link",
			"route add default via 10.0.1.240 dev eth0 mtu 1450",
		},
	}
}

// awsLayout is what routed-eni-cni-plugin/driver leaves: the node has no
// proxy ARP, so nobody answers for the gateway.
func awsLayout() layout {
	const link, linkMAC = "eni04c1d2e3f45", "de:6f:18:a9:04:c1"
	return layout{
		link:    link,
		linkMAC: linkMAC,
		mac:     "0a:58:c0:a8:21:4b",
		mtu:     9001,
		address: netip.MustParsePrefix("192.168.33.75/32"),
		gateway: netip.MustParseAddr("169.254.1.1"),
		node: []string{
			"link set " + link + " up",
			"route add 192.168.33.75/32 dev " + link + " scope link",
		},
		pod: []string{
			"link set eth0 up",
			"route add 169.254.1.1/32 dev eth0 scope link",
			"route add default via 169.254.1.1 dev eth0",
			"addr add 192.168.33.75/32 dev eth0",
			"neigh add 169.254.1.1 lladdr " + linkMAC + " nud permanent dev eth0",
		},
	}
}

// awsIPv6Layout is what routed-eni-cni-plugin and, chained to it, egress-cni leave
// in a cluster with IPv6: the latter is like ptp.
func awsIPv6Layout() layout {
	const link, linkMAC = "eni0a1b2c3d4e5", "de:6f:18:a9:04:c6"
	return layout{
		link:    link,
		linkMAC: linkMAC,
		mac:     "0a:58:c0:a8:21:06",
		mtu:     9001,
		v6:      netip.MustParsePrefix("2001:db8:a:1::5/128"),
		v6gw:    netip.MustParseAddr("fe80::1"),
		node: []string{
			"link set " + link + " up",
			"route add 2001:db8:a:1::5/128 dev " + link,
			"link add veth0e172ac4 type veth peer name v4if0 netns POD",
			"addr add 169.254.172.1/32 dev veth0e172ac4",
			"link set veth0e172ac4 up",
			"route add 169.254.172.10/32 dev veth0e172ac4 scope host",
		},
		pod: []string{
			"link set eth0 up",
			"addr add 2001:db8:a:1::5/128 dev eth0 nodad",
			"route add fe80::1/128 dev eth0",
			"route add default via fe80::1 dev eth0",
			"neigh add fe80::1 lladdr " + linkMAC + " nud permanent dev eth0",
			"addr add 169.254.172.10/22 brd + dev v4if0",
			"link set v4if0 up",
			"route del 169.254.172.0/22 dev v4if0",
			"route add 169.254.172.1/32 dev v4if0 scope link src 169.254.172.10",
			"route add 169.254.172.0/22 via 169.254.172.1 dev v4if0 src 169.254.172.10",
			"route add default via 169.254.172.1 dev v4if0",
		},
		podSys: map[string]string{"net/ipv6/conf/v4if0/disable_ipv6": "1"},
	}
}

// azureLayout is what azure-vnet's transparent mode leaves: a permanent
// neighbour and proxy ARP as well.
func azureLayout() layout {
	const link, linkMAC = "azv9d0e1f2a3b4", "aa:aa:aa:aa:aa:aa"
	return layout{
		link:    link,
		linkMAC: linkMAC,
		mac:     "0a:58:0a:f0:00:23",
		mtu:     1500,
		address: netip.MustParsePrefix("10.240.0.35/16"),
		gateway: netip.MustParseAddr("169.254.1.1"),
		node: []string{
			"link set " + link + " up",
			"route add 10.240.0.35/32 dev " + link,
		},
		pod: []string{
			"link set eth0 up",
			"addr add 10.240.0.35/16 brd + dev eth0",
			"route del 10.240.0.0/16 dev eth0",
			"route add 169.254.1.1/32 dev eth0 scope link",
			"route add default via 169.254.1.1 dev eth0",
			"neigh add 169.254.1.1 lladdr " + linkMAC + " nud permanent dev eth0",
		},
		sysctls: map[string]string{"net/ipv4/conf/" + link + "/proxy_arp": "1"},
	}
}

// l2Layout is a bridge port with no address on either side.
func l2Layout() layout {
	return layout{
		link: "veth5b6c7d8e",
		mac:  "0a:58:00:00:00:09",
		mtu:  1500,
		host: []string{"link add l2br0 type bridge"},
		node: []string{
			"link set veth5b6c7d8e master l2br0",
			"link set l2br0 up",
		},
		pod: []string{"link set eth0 up"},
	}
}
