# dhcpcd with Debian's configuration and hooks.
case $1 in
start)
	own
	mkdir -p /var/lib/dhcpcd /run/dhcpcd
	dhcpcd -4 --nobackground eth0
	;;
start6)
	own
	mkdir -p /var/lib/dhcpcd /run/dhcpcd
	dhcpcd -6 --nobackground eth0
	;;
state) applied ;;
esac
