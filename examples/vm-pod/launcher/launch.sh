#!/bin/bash
# launch.sh starts the pod's VM through libvirt and ends when the VM does. It
# runs as any user, without capabilities: all that needs them was done by
# virt-launcher-net before. Asked to end (SIGTERM, when the pod is deleted) it has
# the guest shut down.
set -euo pipefail
trap 'exit 1' TERM # while there is no VM to shut down yet

export HOME=/run/vm XDG_RUNTIME_DIR=/run/vm/run LIBVIRT_DEFAULT_URI=qemu:///session
config=$HOME/.config/libvirt
domain=$HOME/vm.xml
rm -rf "$XDG_RUNTIME_DIR" # of a container before this one: nothing of it is alive
mkdir -p "$config" "$XDG_RUNTIME_DIR"

# The VM with its NICs: a file to insert, nothing to work out. Their taps, MACs
# and MTUs are in nics.json too, and qemu.args has the same for a QEMU without
# libvirt: mapfile -t nics </run/nics/qemu.args; exec qemu-system-x86_64 … "${nics[@]}"
sed '/<!-- interfaces.xml -->/r /run/nics/interfaces.xml' /launcher/vm.xml >"$domain"

# libvirt's daemon of one user. QEMU opens its files itself, without virtlogd.
echo 'stdio_handler = "file"' >"$config/qemu.conf"
libvirtd --daemon

# What happens to the VM, from before its start. Lines end in "Stopped Shutdown".
exec {events}< <(exec stdbuf -oL virsh --quiet event --event lifecycle --loop)

virsh --quiet create "$domain"
name=$(virsh --quiet list --name | head -n 1)

# The answer to SIGTERM, in time for the kubelet: ask, and later insist.
# shellcheck disable=SC2317 # the trap calls it
shut_down() {
	echo "launch.sh: asking $name to shut down" >&2
	virsh --quiet shutdown "$name" &
	{ sleep "${SHUTDOWN_SECONDS:-20}" && virsh --quiet destroy "$name"; } &
}
trap shut_down TERM

end="libvirtd is gone"
while read -r event <&"$events"; do
	case $event in
	*": Stopped "*) end=${event##*: } && break ;;
	esac
done
echo "launch.sh: $name: $end" >&2
case $end in
"Stopped Shutdown" | "Stopped Destroyed") exit 0 ;;
*) exit 1 ;;
esac
