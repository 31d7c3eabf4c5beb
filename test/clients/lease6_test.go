package clients

import "github.com/virt-launcher-net/virt-launcher-net/internal/podtest"

const (
	resolvConf6 = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver fd00:10:96::a\n"
	// Of the node's interface in pods whose gateway is not link-local, and what the
	// guest knows such a gateway by.
	nodeMAC     = "0a:58:00:00:00:01"
	madeOfMAC   = "fe80::858:ff:fe00:1"
	calicosHost = "fe80::ecee:eeff:feee:eeee"
)

// given6 is what resolvConf6 says, and the default route.
func given6(address, router string, mtu int, routes ...string) state {
	return state{
		Address: address, Routes: append([]string{toDefault + router}, routes...), MTU: mtu,
		DNS:    []string{"fd00:10:96::a"},
		Search: []string{"default.svc.cluster.local", "svc.cluster.local", "cluster.local"},
	}
}

func leases6() []lease {
	calico := given6("fd79::5/128", calicosHost, 1450)
	return []lease{
		{
			name: "calico6", title: "IPv6, Calico: an address alone, the gateway link-local",
			six: true, shape: podtest.CalicoDual, given: calico,
		},
		{
			name: "ptp6", title: "IPv6, ptp (kindnet): the gateway has a global address, further routes by it",
			six: true, shape: podtest.KindnetDual, node: []string{"link set veth2c9e44d1 address " + nodeMAC},
			given: given6("fd00:10:244::2/128", madeOfMAC, 1500, "fd00:10:244::/64 via "+madeOfMAC),
		},
		{
			name: "bridge6", title: "IPv6, bridge: a connected network",
			six: true, shape: podtest.BridgeDual, node: []string{"link set cni0 address " + nodeMAC},
			given: given6("fd00:10:22::7/128", madeOfMAC, 1500, "fd00:10:22::/64"),
		},
		{
			name: "only6", title: "IPv6 alone: Calico's pod without IPv4",
			six: true, shape: podtest.CalicoDual, pod: []string{"addr del 192.168.79.5/32 dev eth0", "route flush dev eth0"}, given: calico,
		},
		{
			name: "finite6", title: "IPv6, finite: Calico's for twenty seconds, renewed",
			six: true, shape: podtest.CalicoDual, args: []string{"--lease-time", "20s"}, given: calico, renew: true,
		},
	}
}
