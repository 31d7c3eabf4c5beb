#!/bin/sh
# What prepare does, by hand: prepare.sh MAC ADDRESS GATEWAY. Run in the pod.
set -eu

mac=$1 address=$2 gateway=$3
ip link set eth0 down
ip addr flush dev eth0
ip link set eth0 name up-eth0
ip link set up-eth0 address 02:00:00:00:00:02
ip link add br-eth0 address 02:00:00:00:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
ip link set br-eth0 addrgenmode none arp off mtu 1450 up
ip link set up-eth0 master br-eth0
ip link set up-eth0 addrgenmode none up
bridge link set dev up-eth0 learning off
ip tuntap add tap-eth0 mode tap vnet_hdr
ip link set tap-eth0 mtu 1450 master br-eth0
ip link set tap-eth0 addrgenmode none up
ip link add eth0 type bridge
ip link set eth0 arp off mtu 1450 up
ip addr add "$address" dev eth0 noprefixroute
nft -f - <<EOF
table bridge guard {
	chain forward {
		type filter hook forward priority 0; policy accept;
		iifname "tap-eth0" ether saddr != $mac drop
		iifname "tap-eth0" udp dport 67 drop
		iifname "tap-eth0" ether type ip ip saddr != ${address%/*} drop
		iifname "tap-eth0" ether type arp arp saddr ip != { 0.0.0.0, ${address%/*} } drop
		oifname "tap-eth0" udp dport 68 drop
	}
}
EOF
[ -n "$gateway" ] || exit 0
# dnsmasq needs an address to serve from; the gateway's is not ours to take.
ip addr add "${address%.*}.254/24" dev br-eth0
exec dnsmasq --conf-file=/dev/null --user=root --port=0 --interface=br-eth0 --except-interface=lo --bind-interfaces \
	--dhcp-authoritative --no-ping --dhcp-leasefile=/dev/null --pid-file="$PID" --log-facility=/dev/null \
	--dhcp-range="${address%/*},static,255.255.255.0,infinite" --dhcp-host="$mac,${address%/*}" \
	--dhcp-option=option:router,"$gateway" --dhcp-option=option:mtu,1450
