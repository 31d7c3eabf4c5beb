#!/bin/sh
# What busybox's udhcpc runs at each event: applies the lease (address, MTU,
# classless static routes before the router (RFC 3442), resolver, hostname) and
# writes it to the file $LEASE, a line NAME=VALUE for each option.
file=${LEASE:-/run/lease}

describe() {
	for name in ip mask router staticroutes mtu dns search domain hostname ntpsrv serverid; do
		eval "echo \"$name=\$$name\""
	done
}

# A gateway outside the subnet is reached on the link itself.
route_via() {
	ip route replace "$1" via "$2" dev "$interface" 2>/dev/null && return
	ip route replace "$2/32" dev "$interface"
	ip route replace "$1" via "$2" dev "$interface"
}

apply_routes() {
	if [ -z "$staticroutes" ]; then
		set -- $router
		[ -z "$1" ] || route_via default "$1"
		return
	fi
	set -- $staticroutes
	while [ $# -ge 2 ]; do
		if [ "$2" = 0.0.0.0 ]; then
			ip route replace "$1" dev "$interface"
		else
			route_via "$1" "$2"
		fi
		shift 2
	done
}

apply() {
	ip -4 addr flush dev "$interface"
	[ -z "$mtu" ] || ip link set "$interface" mtu "$mtu"
	ip addr add "$ip/$mask" broadcast "${broadcast:-+}" dev "$interface"
	apply_routes
	{
		[ -z "$search$domain" ] || echo "search ${search:-$domain}"
		for server in $dns; do
			echo "nameserver $server"
		done
	} >/etc/resolv.conf
	[ -z "$hostname" ] || hostname "$hostname"
}

case $1 in
deconfig)
	ip -4 addr flush dev "$interface"
	ip link set "$interface" up
	;;
bound | renew)
	# A renewed lease that says the same leaves connections alone.
	if [ "$1" = bound ] || [ "$(describe)" != "$(grep -v ^lease= "$file")" ]; then
		apply
	fi
	{
		describe
		echo "lease=$lease"
	} >"$file.new"
	mv "$file.new" "$file"
	;;
esac
