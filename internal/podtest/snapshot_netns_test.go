package podtest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestSnapshotSeesEachChange(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, KindnetDual)
	tests := []struct{ change, undo string }{
		{"ip link set eth0 mtu 1400", "ip link set eth0 mtu 1500"},
		{"ip link set eth0 promisc on", "ip link set eth0 promisc off"},
		{"ip link set eth0 arp off", "ip link set eth0 arp on"},
		{"ip link set eth0 alias other", "ip link set eth0 alias ''"},
		{"ip link property add dev eth0 altname other", "ip link property del dev eth0 altname other"},
		{"ip link set eth0 addrgenmode none", "ip link set eth0 addrgenmode eui64"},
		{"ip link set eth0 txqueuelen 7", "ip link set eth0 txqueuelen 1000"},
		{"ip link set eth0 name up-eth0", "ip link set up-eth0 name eth0"},
		{"ip link add br-eth0 type bridge", "ip link del br-eth0"},
		{"ip tuntap add tap-eth0 mode tap vnet_hdr", "ip tuntap del tap-eth0 mode tap"},
		{"ip addr add 10.9.9.9/32 dev eth0", "ip addr del 10.9.9.9/32 dev eth0"},
		{"ip addr add fd09::9/128 dev eth0 nodad", "ip addr del fd09::9/128 dev eth0"},
		{"ip addr change 10.244.0.2/24 dev eth0 noprefixroute valid_lft 9999 preferred_lft 999", "ip addr change 10.244.0.2/24 dev eth0 noprefixroute valid_lft forever preferred_lft forever"},
		{"ip route add 10.8.0.0/16 via 10.244.0.1", "ip route del 10.8.0.0/16"},
		{"ip route add 10.8.0.0/16 via 10.244.0.1 table 100", "ip route del 10.8.0.0/16 table 100"},
		{"ip route change default via 10.244.0.1 mtu 1300", "ip route change default via 10.244.0.1"},
		{"ip -6 route add fd08::/64 via fd00:10:244::1", "ip -6 route del fd08::/64"},
		{"ip nexthop add id 7 via 10.244.0.1 dev eth0", "ip nexthop del id 7"},
		{"ip -6 route add fd08::/64 via fd00:10:244::1 expires 1800", "ip -6 route del fd08::/64"},
		{"ip route add local 10.66.0.0/24 dev eth0", "ip route del local 10.66.0.0/24 dev eth0"},
		{"ip rule add from 10.0.0.0/8 lookup 100", "ip rule del from 10.0.0.0/8 lookup 100"},
		{"ip -6 rule add from fd00::/8 lookup 100", "ip -6 rule del from fd00::/8 lookup 100"},
		{"ip neigh add 10.244.0.9 lladdr 02:00:00:00:00:09 nud permanent dev eth0", "ip neigh del 10.244.0.9 dev eth0"},
		{"ip neigh add proxy 10.244.0.9 dev eth0", "ip neigh del proxy 10.244.0.9 dev eth0"},
		{"tc qdisc add dev eth0 ingress", "tc qdisc del dev eth0 ingress"},
		{"nft add table bridge guard", "nft delete table bridge guard"},
		{"sysctl -q net.ipv4.conf.eth0.arp_ignore=1", "sysctl -q net.ipv4.conf.eth0.arp_ignore=0"},
		{"sysctl -q net.ipv6.conf.eth0.accept_ra=0", "sysctl -q net.ipv6.conf.eth0.accept_ra=1"},
	}
	before := TakeSnapshot(t, pod.NS)
	for _, test := range tests {
		t.Run(test.change, func(t *testing.T) {
			pod.Run(t, "sh", "-c", test.change)
			if TakeSnapshot(t, pod.NS) == before {
				t.Error("the snapshot is the same after the change")
			}
			pod.Run(t, "sh", "-c", test.undo)
			if after := TakeSnapshot(t, pod.NS); after != before {
				t.Errorf("the snapshot differs after undoing it:\n%s", Diff(before, after))
			}
		})
	}
}

func TestSnapshotSeesBridgePorts(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, BridgeCNI)
	before := TakeSnapshot(t, pod.Node)
	pod.Node.Run(t, "bridge", "link", "set", "dev", pod.NodeLink, "learning", "off")
	if TakeSnapshot(t, pod.Node) == before {
		t.Error("the snapshot is the same after a port stopped learning")
	}
}

// What changes by itself is not in a snapshot.
func TestSnapshotIsStable(t *testing.T) {
	t.Parallel()
	pod := NewPod(t, BridgeCNI)
	pod.Node.Run(t, "nft", `add table bridge t; add chain bridge t c { type filter hook forward priority 0; }; add rule bridge t c counter`)
	pod.Run(t, "ip", "addr", "add", "10.9.9.9/32", "dev", "eth0", "valid_lft", "9999", "preferred_lft", "999")
	node, inside := TakeSnapshot(t, pod.Node), TakeSnapshot(t, pod.NS)
	// Lifetimes and the bridge's timers count in seconds and hundredths, the
	// counters in packets.
	pod.Run(t, "ping", "-c", "3", "-i", "0.5", pod.Gateway.String())
	if after := TakeSnapshot(t, pod.Node); after != node {
		t.Errorf("node:\n%s", Diff(node, after))
	}
	if after := TakeSnapshot(t, pod.NS); after != inside {
		t.Errorf("pod:\n%s", Diff(inside, after))
	}
	if !strings.Contains(inside, `"finite"`) || !strings.Contains(inside, `"forever"`) {
		t.Error("the snapshot does not tell which addresses last")
	}
}

// That a tap was open for a moment is not in a snapshot once it is closed.
func TestSnapshotOfClosedTap(t *testing.T) {
	t.Parallel()
	ns := NewTapNS(t)
	before := TakeSnapshot(t, ns)
	nic := NewNIC(t, ns, "tap0")
	if out := ns.Run(t, "ip", "-6", "route", "show", "table", "local", "type", "multicast"); !strings.Contains(out, "tap0") {
		t.Fatalf("the kernel made no route to ff00::/8; the test shows nothing: %q", out)
	}
	if err := nic.Close(); err != nil {
		t.Fatal(err)
	}
	if after := TakeSnapshot(t, ns); after != before {
		t.Error(Diff(before, after))
	}
}

func TestWaitSettled(t *testing.T) {
	t.Parallel()
	ns := New(t)
	ns.IP(t, "link add a0 type veth peer name b0", "link set a0 up", "link set b0 up", "addr add fd01::1/64 dev a0")
	if out := ns.Run(t, "ip", "-6", "addr", "show", "dev", "a0"); !strings.Contains(out, "tentative") {
		t.Fatalf("a new address is not tentative; the test shows nothing: %s", out)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := WaitSettled(short, ns); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "tentative") {
		t.Errorf("WaitSettled after its time: %v", err)
	}
	if err := WaitSettled(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	if out := ns.Run(t, "ip", "-6", "addr"); strings.Contains(out, "tentative") || !strings.Contains(out, "fd01::1") {
		t.Errorf("after WaitSettled: %s", out)
	}
	ns.IP(t, "addr add fd01::1/64 dev b0")
	if err := WaitSettled(t.Context(), ns); err == nil || !strings.Contains(err.Error(), "duplicate") {
		t.Errorf("WaitSettled with a duplicate address: %v", err)
	}
}

func TestWaitRouter(t *testing.T) {
	t.Parallel()
	ns := New(t)
	ns.IP(t, "link add a0 type veth peer name b0", "link set a0 up", "link set b0 up",
		"route add default via fe80::1 dev a0", "route add fd02::/64 via fe80::1 dev a0 proto ra")
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := WaitRouter(short, ns); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("WaitRouter after its time: %v", err)
	}
	added := make(chan error, 1)
	go func() { added <- ns.Batch(t.Context(), "route add default via fe80::2 dev a0 proto ra metric 1") }()
	if err := errors.Join(WaitRouter(t.Context(), ns), <-added); err != nil {
		t.Error(err)
	}
}
