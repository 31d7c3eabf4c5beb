# systemd's client without a systemd around it.
case $1 in
start | start6)
	own
	mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp /run/systemd/network
	chown -R systemd-network:systemd-network /run/systemd/netif
	if [ "$1" = start6 ]; then
		cat >/run/systemd/network/05-eth0.network <<-END
			[Match]
			Name=eth0
			[Network]
			LinkLocalAddressing=ipv6
			IPv6AcceptRA=yes
			[IPv6AcceptRA]
			UseDomains=yes
			[DHCPv6]
			UseDomains=yes
			DUIDType=link-layer
		END
	fi
	cat >/run/systemd/network/10-eth0.network <<-END
		[Match]
		Name=eth0
		[Network]
		DHCP=ipv4
		IPv6AcceptRA=no
		LinkLocalAddressing=no
		[DHCPv4]
		UseDomains=yes
		UseMTU=yes
	END
	/lib/systemd/systemd-networkd
	;;
state)
	# It writes no resolv.conf: it tells systemd-resolved by these files.
	cat /run/systemd/netif/links/* | sed -n 's/^DNS=/dns /p; s/^DOMAINS=/search /p'
	cat /run/systemd/netif/leases/* | sed -n 's/^HOSTNAME=/hostname /p'
	;;
esac
