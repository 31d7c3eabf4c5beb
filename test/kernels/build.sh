#!/bin/bash
# build.sh OUTDIR: Debian's kernels to boot in QEMU, as OUTDIR/VERSION/vmlinux,
# and parts of an initramfs for them: OUTDIR/VERSION/modules has the kernel's
# modules for networks, OUTDIR/tools has init beside this script and the programs of
# this machine that the tests run, OUTDIR/policy has selinux.cil, compiled. Takes the kernels out of their packages, from
# where the machine's apt takes Debian's, checked with Debian's keys; installs
# nothing and writes nothing outside OUTDIR. Makes only what OUTDIR does not hold
# from the same sources. Needs apt, cpio, kmod, xz-utils and what make deps installs.
set -euo pipefail

out=$(mkdir -p "${1:?usage: build.sh OUTDIR}" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
# The version of each kernel, and the release of Debian that has it. Those of clouds, but for
# the one with the drivers of physical NICs.
declare -A releases=([5.10]=bullseye [6.1]=bookworm [6.1-nics]=bookworm [6.12]=trixie)
nics=(8139cp e1000 e1000e virtio_net virtio_pci)
# Loaded by the kernel itself when they are asked for; with those that they need.
modules=(8021q act_gact act_mirred bonding br_netfilter bridge cls_bpf cls_u32 dummy ipvlan
	macvlan macvtap nf_tables sch_ingress tun veth vrf vxlan wireguard)
# Put where they are searched for first, before busybox's of the same name.
tools=(dash dhclient ip kmod mount nft nsenter ping tc tcpdump unshare)
busybox=/bin/busybox
unpack=$here/../guest/unpack-kernel.sh

work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Where Debian's packages come from is the machine's choice.
mirror=$(. /etc/os-release && apt-get indextargets --format '$(REPO_URI)' \
	'Identifier: Packages' "Release: $VERSION_CODENAME" 'Component: main' | head -n 1)

# have DIR SOURCES: whether DIR was made from these sources.
have() {
	[ "$(cat "$1/sources" 2>/dev/null)" = "$2" ]
}

# pack ROOT FILE: an archive for an initramfs. The kernel takes several in a row.
pack() {
	(cd "$1" && find . -print0 | sort -z | cpio --quiet --null --create --format=newc --owner=+0:+0) >"$2"
}

# finish DIR SOURCES: puts what was made in $work/made into its place.
finish() {
	rm -rf "$1"
	mv "$work/made" "$1"
	echo "$2" >"$1/sources"
}

# apt RELEASE COMMAND...: apt-get or apt-cache with package lists of their own.
apt() {
	local command=$2 dir=$work/apt
	mkdir -p "$dir/lists/partial" "$dir/archives/partial"
	echo "deb [signed-by=$keys] ${mirror:?apt has no place for Debian packages} $1 main" >"$dir/sources.list"
	# As root apt would fetch as a user who cannot write to our directory.
	"$command" -q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir" -o APT::Sandbox::User=root \
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "${@:3}"
}

# make_kernel VERSION: $work/made has vmlinux and modules.
make_kernel() {
	local release=${releases[$1]} package=linux-image-cloud-amd64 root=$work/kernel version name
	local wanted=("${modules[@]}")
	if [ "$1" != "${1%-nics}" ]; then
		package=linux-image-amd64
		wanted+=("${nics[@]}")
	fi
	apt "$release" apt-get update >&2
	package=$(apt "$release" apt-cache depends $package |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }')
	echo "build.sh: taking kernel $1 out of ${package:?is not in $release}" >&2
	(cd "$work/apt" && apt "$release" apt-get download "$package" >&2)
	dpkg -x "$work"/apt/linux-image-*.deb "$root"
	[ -d "$root/lib" ] || ln -s usr/lib "$root/lib"
	version=$(ls "$root/lib/modules")
	case $version in
	"${1%-nics}".*) ;;
	*) echo "build.sh: $release has kernel $version, not $1" >&2 && return 1 ;;
	esac
	find "$root/lib/modules/$version/" -name '*.ko.xz' -exec xz --decompress {} +
	depmod --basedir "$root" "$version"

	for name in "${wanted[@]}" $(find "$root/lib/modules/$version/" -name 'nft_*.ko' -printf '%f\n' | sed 's/\.ko$//'); do
		modprobe --dirname "$root" --set-version "$version" --show-depends "$name"
	done | awk '$1 == "insmod" { print $2 }' | sort -u | while read -r name; do
		install -D -m 644 "$name" "$work/modules/lib/modules/${name#"$root"/lib/modules/}"
	done
	cp "$root/lib/modules/$version"/modules.{builtin,builtin.modinfo,order} "$work/modules/lib/modules/$version/"
	depmod --basedir "$work/modules" "$version"
	mkdir "$work/made"
	"$unpack" "$root"/boot/vmlinuz-* "$work/made/vmlinux"
	pack "$work/modules" "$work/made/modules"
	rm -rf "$root" "$work/modules" "$work/apt"
}

# make_tools: $work/made has tools.
make_tools() {
	local root=$work/root tool library
	mkdir -p "$root"/{bin,dev,etc,lib,proc,run,sbin,sys,tmp,var/lib/dhcp,var/run} "$work/made"
	install "$here/init" "$root/init"
	install "$busybox" "$root/bin/busybox"
	for tool in $("$busybox" --list); do
		[ "$tool" = busybox ] || ln -s busybox "$root/bin/$tool"
	done
	for tool in "${tools[@]}"; do
		rm -f "$root/bin/$tool"
		install "$(command -v "$tool")" "$root/sbin/$tool"
		for library in $(ldd "$root/sbin/$tool" | grep -o '/[^ ]*'); do
			[ -e "$root$library" ] || install -D "$library" "$root$library"
		done
	done
	# udhcpc's script is to find ip(8), not busybox's.
	ln -sf ../sbin/dash "$root/bin/sh"
	ln -s kmod "$root/sbin/modprobe" # where the kernel looks for it
	echo root:x:0:0:root:/:/bin/sh >"$root/etc/passwd" # for tcpdump(8)
	pack "$root" "$work/made/cpio"
}

# make_policy: $work/made has policy, with the compiler out of Debian's packages.
make_policy() {
	local root=$work/secilc
	apt bookworm apt-get update >&2
	(cd "$work/apt" && apt bookworm apt-get download secilc libsepol2 >&2)
	for package in "$work"/apt/*.deb; do
		dpkg -x "$package" "$root"
	done
	mkdir "$work/made" "$work/root"
	LD_LIBRARY_PATH=$(echo "$root"/{,usr/}lib/*-linux-gnu | tr ' ' :) "$root/usr/bin/secilc" \
		--policyvers=33 --output="$work/root/selinux.policy" --filecontext=/dev/null "$here/selinux.cil"
	pack "$work/root" "$work/made/cpio"
	rm -rf "$root" "$work/root" "$work/apt"
}

for version in "${!releases[@]}"; do
	sources=$(cat "${BASH_SOURCE[0]}" "$unpack" | sha256sum)
	if ! have "$out/$version" "$sources"; then
		make_kernel "$version"
		finish "$out/$version" "$sources"
	fi
done
sources=$(cat "${BASH_SOURCE[0]}" "$here/selinux.cil" | sha256sum)
if ! have "$out/policy" "$sources"; then
	make_policy
	finish "$out/policy" "$sources"
fi
mapfile -t paths < <(command -v "${tools[@]}" "$busybox")
sources=$(cat "${BASH_SOURCE[0]}" "$here/init" "${paths[@]}" | sha256sum)
if ! have "$out/tools" "$sources"; then
	make_tools
	finish "$out/tools" "$sources"
fi
