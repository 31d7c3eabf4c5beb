#!/bin/sh
# What the guest's dhcpcd runs at each event: the name servers that DHCPv6 told
# join those of DHCP. The address is dhcpcd's own affair.
[ "$reason" = BOUND6 ] || exit 0
for server in $new_dhcp6_name_servers; do
	echo "nameserver $server"
done >>/etc/resolv.conf
