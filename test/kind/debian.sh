#!/bin/bash
# debian.sh DIR NAMES...: makes Debian file systems as DIR/root/NAME.tar, those it
# does not find there yet: node, a node's without Kubernetes; network, of pods
# that work on networks; policy, of one that enforces NetworkPolicies; launcher, with libvirt and QEMU. Needs mmdebstrap.
set -euo pipefail

out=$(mkdir -p "${1:?usage: debian.sh DIR NAMES...}/root" && cd "$1/root" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
. "$here/versions.sh"

# root NAME VARIANT PACKAGES...: makes NAME.tar. The variant extract is the
# packages' files and nothing else.
root() {
	local name=$1 variant=$2 packages wanted
	shift 2
	packages=$(printf ',%s' "$@")
	wanted="$debian $variant $*"
	[ "$(cat "$out/$name.packages" 2>/dev/null)" = "$wanted" ] && return
	echo "debian.sh: $name" >&2
	rm -f "$out/$name.packages"
	nice -n 10 mmdebstrap --quiet --mode=root --variant="$variant" --include="${packages#,}" \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' "$debian" "$out/$name.tar"
	echo "$wanted" >"$out/$name.packages"
}

for name in "${@:2}"; do
	case $name in
	network) root network extract busybox-static curl iproute2 iputils-ping nftables ;;
	policy) root policy extract iptables ipset ;;
	node) root node minbase bash ca-certificates conntrack containerd curl dbus ethtool hostname iproute2 \
		iptables iputils-ping jq kmod libseccomp2 mount nftables procps runc socat systemd util-linux ;;
	launcher) root launcher minbase iproute2 libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 ;;
	esac
done
