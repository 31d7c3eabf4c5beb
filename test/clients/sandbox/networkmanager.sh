# NetworkManager with its internal client, without udev and systemd.
case $1 in
start | start6)
	ipv4=auto ipv6=disabled
	[ "$1" = start ] || ipv4=disabled ipv6=auto
	own
	unpacked
	bus
	mkdir -p /run/NetworkManager /var/lib/NetworkManager /etc/NetworkManager/system-connections
	cat >/etc/NetworkManager/NetworkManager.conf <<-END
		[main]
		plugins=keyfile
		no-auto-default=*
		auth-polkit=false
		rc-manager=file
		[device]
		match-device=interface-name:eth0
		managed=1
	END
	cat >/etc/NetworkManager/system-connections/eth0.nmconnection <<-END
		[connection]
		id=eth0
		type=ethernet
		interface-name=eth0
		[ipv4]
		method=$ipv4
		[ipv6]
		method=$ipv6
	END
	chmod 600 /etc/NetworkManager/system-connections/*
	NetworkManager --debug
	;;
state) applied ;;
esac
