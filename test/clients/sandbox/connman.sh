# connman without its DNS proxy.
case $1 in
start)
	own
	unpacked
	bus
	mkdir -p /var/lib/connman /run/connman
	printf '[General]\nPreferredTechnologies=ethernet\nEnableOnlineCheck=false\n' >/run/connman.conf
	connmand --nodaemon --nodnsproxy --device=eth0 --config=/run/connman.conf
	;;
state) applied /run/connman/resolv.conf ;;
esac
