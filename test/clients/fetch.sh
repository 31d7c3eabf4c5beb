#!/bin/bash
# fetch.sh OUTDIR: the DHCP clients that are daemons which would take hold of
# the machine's own network if they were installed: NetworkManager and connman.
# Taken, with what they need and the machine lacks, out of Debian's packages
# into OUTDIR/root, without installing them. Needs dpkg and apt; writes nothing
# outside OUTDIR. Does nothing if OUTDIR holds what this script gave before.
set -euo pipefail

out=${1:?usage: fetch.sh OUTDIR}
packages=(connman network-manager)

sources=$(sha256sum <"${BASH_SOURCE[0]}")
if [ "$(cat "$out/sources" 2>/dev/null)" = "$sources" ]; then
	exit 0
fi

mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/archives/partial"

apt-cache show "${packages[@]}" >/dev/null 2>&1 || apt-get -q update >&2
# A dry run of an installation is what knows the packages that are missing. As
# root apt would fetch as a user who cannot write to our directory.
apt-get -q -y --no-install-recommends --reinstall --download-only \
	-o Dir::Cache::archives="$work/archives" -o Debug::NoLocking=1 -o APT::Sandbox::User=root \
	install "${packages[@]}" >&2
for package in "$work"/archives/*.deb; do
	dpkg -x "$package" "$work/root"
done
rm -rf "$out/root" "$out/sources"
mv "$work/root" "$out/root"
echo "$sources" >"$out/sources"
