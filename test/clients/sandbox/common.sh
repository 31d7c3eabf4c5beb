# What all clients have in common. The shell is the first process in process,
# mount and UTS namespaces of its own and in the guest's network namespace; $1
# is what to do, $CLIENTS the root of the clients that are not installed.
set -eu

# own has the client write to directories of its own, and see the network
# devices of the guest's namespace in /sys.
own() {
	mount -t tmpfs -o mode=755 none /mnt
	cp -a /etc/. /mnt/
	mount --bind /mnt /etc
	rm -f /etc/resolv.conf /etc/hostname
	: >/etc/resolv.conf
	for dir in /run /var/lib; do mount -t tmpfs -o mode=755 none $dir; done
	mount -t sysfs -o ro none /sys
	hostname localhost
}

# unpacked has the programs of $CLIENTS found, with their libraries.
unpacked() {
	PATH=$CLIENTS/usr/sbin:$CLIENTS/usr/bin:$PATH
	LD_LIBRARY_PATH=$(echo "$CLIENTS"/usr/lib/*-linux-gnu "$CLIENTS"/lib/*-linux-gnu | tr ' ' :)
	export PATH LD_LIBRARY_PATH
}

# bus starts a message bus on which everybody may do everything.
bus() {
	mkdir -p /run/dbus
	cat >/run/bus.conf <<-END
		<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
		 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
		<busconfig>
		<type>system</type>
		<listen>unix:path=/run/dbus/system_bus_socket</listen>
		<auth>EXTERNAL</auth>
		<policy context="default">
		<allow user="*"/><allow own="*"/>
		<allow send_type="method_call"/><allow receive_type="method_call"/>
		<allow send_type="signal"/><allow receive_type="signal"/>
		<allow send_requested_reply="true" send_type="method_return"/><allow receive_type="method_return"/>
		<allow send_requested_reply="true" send_type="error"/><allow receive_type="error"/>
		</policy>
		</busconfig>
	END
	dbus-daemon --config-file=/run/bus.conf --fork --nopidfile # returns once it listens
}

# applied prints what programs in the guest see; $1 is where the client writes
# its resolv.conf.
applied() {
	file=${1:-/etc/resolv.conf}
	sed -n 's/^nameserver /dns /p' "$file"
	# The last of the two wins (resolv.conf(5)).
	sed -n 's/^\(search\|domain\) /search /p' "$file" | tail -n 1
	echo "hostname $(hostname)"
}
