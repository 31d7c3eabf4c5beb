#!/bin/bash
# build.sh OUTDIR: a tiny Linux guest to boot with -kernel OUTDIR/vmlinux
# -initrd OUTDIR/initramfs: Debian's cloud kernel, taken out of its package
# without installing it and uncompressed, and an initramfs of busybox, dhcpcd with its
# libraries and init beside this script. OUTDIR/modules has that kernel's modules for a
# virtual machine. Needs busybox-static, dhcpcd-base, cpio, dpkg, apt and what
# unpack-kernel.sh does; writes
# nothing outside OUTDIR. Does nothing if OUTDIR holds what the same sources gave
# before.
set -euo pipefail

out=${1:?usage: build.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
init=$here/init
udhcpc=$here/../../internal/podtest/udhcpc.sh
dhcpcd6=$here/dhcpcd6.sh
hotplug=$here/hotplug.sh
busybox=/bin/busybox
# Busybox has no DHCPv6 client.
dhcpcd=/usr/sbin/dhcpcd
metapackage=linux-image-cloud-amd64
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci
	failover net_failover virtio_net button evdev)

unpack=$here/unpack-kernel.sh
sources=$(cat "${BASH_SOURCE[0]}" "$unpack" "$init" "$udhcpc" "$dhcpcd6" "$hotplug" "$busybox" "$dhcpcd" | sha256sum)
if [ -s "$out/vmlinux" ] && [ -s "$out/initramfs" ] && [ "$(cat "$out/sources" 2>/dev/null)" = "$sources" ]; then
	exit 0
fi
if ldd "$busybox" >/dev/null 2>&1; then
	echo "build.sh: $busybox is not static: install busybox-static" >&2
	exit 1
fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

kernel_package() {
	apt-cache depends "$metapackage" | awk '$1 == "Depends:" && $2 ~ /^linux-image-/ { print $2; exit }'
}

fetch_kernel() {
	local package
	package=$(kernel_package)
	if [ -z "$package" ]; then
		apt-get update >&2
		package=$(kernel_package)
	fi
	echo "build.sh: taking the kernel out of ${package:?no $metapackage in the package lists}" >&2
	# As root apt would fetch as a user who cannot write to our directory.
	(cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2)
	dpkg -x "$work"/linux-image-*.deb "$work/kernel"
}

make_root() {
	local root=$work/root module applet library
	mkdir -p "$root"/{bin,dev,etc/acpi/PWRF,lib/modules,proc,run,sys,tmp,var/lib/dhcpcd,www}
	install "$busybox" "$root/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	install "$dhcpcd" "$root/bin/dhcpcd"
	for library in $(ldd "$dhcpcd" | grep -o '/[^ ]*'); do
		install -D "$library" "$root$library"
	done
	install "$init" "$root/init"
	install "$udhcpc" "$root/etc/udhcpc.sh"
	install "$dhcpcd6" "$root/etc/dhcpcd6.sh"
	install "$hotplug" "$root/etc/hotplug.sh"
	printf '#!/bin/sh\necho VLN-SHUTDOWN >/dev/ttyS0\nexec poweroff -f\n' >"$root/etc/acpi/PWRF/00000080"
	chmod +x "$root/etc/acpi/PWRF/00000080"
	echo 'hello from the guest' >"$root/www/index.html"
	for module in "${modules[@]}"; do
		find "$work/kernel/lib/modules" -name "$module.ko" -exec cp {} "$root/lib/modules/" \;
		[ -f "$root/lib/modules/$module.ko" ] || { echo "build.sh: the kernel has no module $module" >&2; return 1; }
	done
}

# keep_modules keeps what a guest that loads its modules itself wants.
keep_modules() {
	(
		cd "$work/kernel/lib/modules"
		find . \( -path '*/drivers/virtio/*.ko' -o -name 'virtio_*.ko' -o -name virtio-rng.ko -o -name '*failover.ko' \
			-o -name button.ko -o -name 'modules.builtin*' -o -name modules.order \) -print0 |
			cpio --quiet --null --pass-through --make-directories "$work/modules"
	)
}

fetch_kernel
make_root
keep_modules
"$unpack" "$work"/kernel/boot/vmlinuz-* "$work/vmlinux"
(cd "$work/root" && find . -print0 | sort -z | cpio --quiet --null --create --format=newc --owner=+0:+0) >"$work/initramfs"
chmod 644 "$work/vmlinux" "$work/initramfs"
rm -rf "$out/sources" "$out/modules"
mv "$work/vmlinux" "$work/initramfs" "$work/modules" "$out/"
echo "$sources" >"$out/sources"
