#!/bin/bash
# debian.sh OUTDIR: a Debian guest to boot with -kernel OUTDIR/vmlinux, which
# build.sh beside this script gave, and -initrd OUTDIR/debian: Debian 12 with
# systemd, its network and its resolver, and what is in debian/ beside this
# script, as a tree that the kernel unpacks into memory. A shell listens to the
# virtio port named shell. Needs mmdebstrap, cpio and the right to make
# namespaces; takes packages from where the machine's apt does; writes nothing
# outside OUTDIR. Does nothing if OUTDIR holds what the same sources gave before.
set -euo pipefail

out=${1:?usage: debian.sh OUTDIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=systemd-sysv,systemd-resolved,dbus,udev,polkitd,kmod,iproute2,iputils-ping,netcat-openbsd

sources=$({
	find "$here/debian" -type f -exec cat {} +
	cat "${BASH_SOURCE[0]}" "$out/sources"
} | sha256sum)
if [ -s "$out/debian" ] && [ "$(cat "$out/debian.sources" 2>/dev/null)" = "$sources" ]; then
	exit 0
fi

out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
# What unpacks packages may run as another user.
chmod 755 "$work"
root=$work/root

# Where Debian's packages come from is the machine's choice.
mirrors=()
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
	case $list in
	*.list | *.sources) ! grep -q '^[^#]*debian' "$list" 2>/dev/null || mirrors+=("$list") ;;
	esac
done

TMPDIR=$work mmdebstrap --quiet --mode=root --variant=essential --include="$packages" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
	bookworm "$root" "${mirrors[@]}" >&2

cp -R "$here/debian/." "$root"
mkdir -p "$root/usr/lib/modules"
cp -R "$out/modules/." "$root/usr/lib/modules"
chroot "$root" depmod "$(ls "$out/modules")"
chroot "$root" systemctl --quiet set-default multi-user.target
chroot "$root" systemctl --quiet enable systemd-networkd systemd-resolved shell
# Nobody logs in, nothing is due, no network but ours comes, and of what a machine has
# besides a network nothing is used: emulated, each process takes a tenth of a second.
chroot "$root" systemctl --quiet mask getty.target timers.target remote-fs.target cryptsetup.target \
	integritysetup.target veritysetup.target swap.target modprobe@.service kmod-static-nodes.service \
	{dev-hugepages,dev-mqueue,sys-kernel-debug,sys-kernel-tracing,sys-kernel-config,sys-fs-fuse-connections}.mount \
	systemd-{initctl,journald-audit}.socket systemd-ask-password-{console,wall}.path \
	systemd-{logind,networkd-wait-online,network-generator,random-seed,remount-fs,user-sessions}.service \
	systemd-{update-utmp,update-utmp-runlevel,journal-flush,modules-load,sysusers,sysctl,tmpfiles-setup,tmpfiles-setup-dev}.service
mkdir "$root/etc/systemd/system-generators"
for generator in "$root"/usr/lib/systemd/system-generators/*; do
	ln -s /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
done
ln -sf /run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
rm -f "$root/etc/hostname"
: >"$root/etc/machine-id"
ln -s /usr/lib/systemd/systemd "$root/init"
# A quarter of the size, for which the network has no use.
rm -rf "$root"/usr/lib/udev/hwdb.* "$root/usr/share/perl" "$root"/usr/lib/*/gconv "$root/var/cache/apt" "$root/var/lib/apt"

(cd "$root" && find . -path './dev/*' -prune -o -print0 | sort -z |
	cpio --quiet --null --create --format=newc) >"$work/debian"
rm -f "$out/debian.sources"
mv "$work/debian" "$out/debian"
echo "$sources" >"$out/debian.sources"
