# ISC's client with Debian's configuration and script.
case $1 in
start)
	own
	mkdir -p /var/lib/dhcp
	# With its own ten seconds it would not ask twice within a short lease.
	printf 'initial-interval 1;\nbackoff-cutoff 1;\n' >>/etc/dhcp/dhclient.conf
	dhclient -4 -d -v eth0
	;;
start6)
	own
	mkdir -p /var/lib/dhcp
	dhclient -6 -d -v eth0
	;;
state) applied ;;
esac
