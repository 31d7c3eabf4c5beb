#!/bin/bash
# unpack-kernel.sh BZIMAGE FILE: the kernel that BZIMAGE holds compressed, as the ELF file
# that QEMU boots without firmware (PVH). An emulated processor takes seconds to unpack it at
# each boot. Needs grep, gzip, lz4, xz-utils and zstd.
set -euo pipefail
export LC_ALL=C # bytes are no characters

image=${1:?usage: unpack-kernel.sh BZIMAGE FILE} out=${2:?usage: unpack-kernel.sh BZIMAGE FILE}
while read -r magic unpack; do
	while IFS=: read -r offset _; do
		# After the kernel the image goes on, of which the unpacker complains.
		tail -c "+$((offset + 1))" "$image" | $unpack >"$out" 2>/dev/null || true
		if [ "$(head -c 4 "$out" | tr -d '\0')" = $'\x7fELF' ]; then
			exit 0
		fi
	done < <(grep --only-matching --byte-offset --text --perl-regexp "$magic" "$image")
done <<'END'
\x02!L\x18 lz4 -dc
\xfd7zXZ\x00 xz -dc --single-stream
\x28\xb5/\xfd zstd -dc
\x1f\x8b\x08 gzip -dc
END
rm -f "$out"
echo "unpack-kernel.sh: $image is compressed as none of lz4, xz, zstd and gzip do" >&2
exit 1
