package podtest

import (
	"net"
	"testing"
)

// Rewire does by hand what the product does: the pod's address goes away, its
// interface and a tap become ports of a bridge.
func Rewire(t testing.TB, pod *Pod, tapFlags string) {
	t.Helper()
	pod.IP(t,
		"addr flush dev eth0",
		"link add br0 "+Switch+" forward_delay 0 mcast_snooping 0",
		"tuntap add dev tap0 mode tap vnet_hdr "+tapFlags,
		"link set eth0 master br0",
		// A hairpin port of the node sends the guest's broadcasts back to us.
		"link set eth0 type bridge_slave learning off",
		"link set tap0 master br0",
		"link set tap0 up",
		"link set br0 up")
}

// ServeDHCP has dnsmasq be the DHCP server of the guest with the MAC address on a
// rewired pod's bridge.
func ServeDHCP(t testing.TB, pod *Pod, mac net.HardwareAddr) {
	t.Helper()
	pod.IP(t, "addr add 169.254.75.10/32 dev br0")
	address := pod.IPv4.Addr().String()
	dnsmasq := StartConsole(t, pod.Command(t.Context(), "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--user=root", "--port=0",
		"--bind-interfaces", "--interface=br0", "--except-interface=lo", "--shared-network=br0,"+address,
		"--dhcp-authoritative", "--no-ping", "--leasefile-ro", "--pid-file=",
		"--dhcp-range="+address+",static,255.255.255.255,24h",
		"--dhcp-host="+mac.String()+","+address+",guest7",
		"--dhcp-option=option:netmask,255.255.255.255",
		"--dhcp-option-force=121,"+pod.Gateway.String()+"/32,0.0.0.0,0.0.0.0/0,"+pod.Gateway.String(),
		"--dhcp-option-force=26,1450",
		"--dhcp-option=option:dns-server,10.96.0.10",
		"--dhcp-option-force=option:domain-search,ns.svc.cluster.local,cluster.local"))
	dnsmasq.WaitLine(t, Patience, "DHCP, sockets bound")
}
