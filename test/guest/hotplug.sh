#!/bin/sh
# What the guest does when a NIC comes besides eth0: it asks for a lease, reports that as
# VLN-PLUGGED INTERFACE ADDRESS, and whether the server answers a ping, as VLN-PING
# SERVER ok. When the NIC has gone, it reports VLN-UNPLUGGED INTERFACE. uevent runs it
# at each of the kernel's events.
PATH=/bin
[ "$SUBSYSTEM" = net ] && [ "$INTERFACE" != eth0 ] && [ "$INTERFACE" != lo ] || exit 0
exec >/dev/ttyS0 2>&1
export LEASE="/run/lease.$INTERFACE"

came() {
	udhcpc -f -q -i "$INTERFACE" -t 20 -T 1 -A 1 -x hostname:guest -O staticroutes -O search -O mtu -s /etc/udhcpc.sh
	echo "VLN-PLUGGED $INTERFACE $(ip -4 -o addr show dev "$INTERFACE" scope global | awk '{ print $4 }')"
	server=$(sed -n 's/^serverid=//p' "$LEASE")
	ping -c 1 -W 5 -I "$INTERFACE" "$server" >/run/ping.log && result=ok || result=failed
	echo "VLN-PING $server $result"
}

case $ACTION in
add) came & ;;
remove) echo "VLN-UNPLUGGED $INTERFACE" ;;
esac
