# connman without its DNS proxy.
case $1 in
start | start6)
	own
	unpacked
	bus
	mkdir -p /var/lib/connman /run/connman
	if [ "$1" = start6 ]; then
		# It finds no DUID for a network that it has not had before.
		id=ethernet_$(tr -d : </sys/class/net/eth0/address)_cable
		mkdir -p "/var/lib/connman/$id"
		printf '[%s]\nName=Wired\nAutoConnect=true\nIPv4.method=off\nIPv6.method=auto\n' "$id" >"/var/lib/connman/$id/settings"
	fi
	printf '[General]\nPreferredTechnologies=ethernet\nEnableOnlineCheck=false\n' >/run/connman.conf
	connmand --nodaemon --nodnsproxy --device=eth0 --config=/run/connman.conf
	;;
state) applied /run/connman/resolv.conf ;;
esac
