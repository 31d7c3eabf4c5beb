# NetworkManager with its internal client, without udev and systemd.
case $1 in
start)
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
		method=auto
		[ipv6]
		method=disabled
	END
	chmod 600 /etc/NetworkManager/system-connections/*
	NetworkManager --debug
	;;
state) applied ;;
esac
