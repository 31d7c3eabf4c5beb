#!/bin/sh
# fetch.sh DIR: unpacks Debian's DHCP servers into DIR/root, together with the
# libraries that this machine lacks. Nothing is installed, so no daemon starts.
set -eu

dir=$1
[ ! -e "$dir/done" ] || exit 0
mkdir -p "$dir/debs/partial" "$dir/root"
apt-get update -qq
apt-get install -qq -y --no-install-recommends --reinstall --download-only \
	-o Dir::Cache::archives="$(realpath "$dir/debs")" -o APT::Sandbox::User=root \
	isc-dhcp-server kea-dhcp4-server >/dev/null
for deb in "$dir"/debs/*.deb; do
	dpkg -x "$deb" "$dir/root"
done
touch "$dir/done"
