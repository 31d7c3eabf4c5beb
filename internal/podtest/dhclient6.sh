#!/bin/sh
# What ISC's dhclient runs at each event: adds the address to the interface, and
# says which it is.
case $reason in
PREINIT6) ip link set "$interface" up ;;
BOUND6 | REBIND6 | RENEW6)
	ip -6 addr replace "$new_ip6_address/$new_ip6_prefixlen" dev "$interface"
	echo "$new_ip6_address"
	;;
esac
