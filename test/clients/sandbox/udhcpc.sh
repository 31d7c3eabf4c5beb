# Busybox's client with Debian's script, and asking for all that this applies.
case $1 in
start)
	own
	udhcpc -f -i eth0 -O mtu &
	echo $! >/run/client.pid
	wait
	;;
state) applied ;;
renew) kill -USR1 "$(cat /run/client.pid)" ;;
esac
