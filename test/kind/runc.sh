#!/bin/bash
# runc.sh: runc for machines on which nobody can have CAP_SYS_RESOURCE: takes
# that capability, resource limits and negative OOM scores out of what a
# container is asked to have, which would otherwise not start. Elsewhere it is
# runc. Needs jq.
set -euo pipefail

runc=/usr/sbin/runc
sys_resource=$((1 << 24))

bounding=$(sed -n 's/^CapBnd:\t/0x/p' /proc/self/status)
((bounding & sys_resource)) && exec "$runc" "$@"

# edit FILE PATH: edits the process at PATH in an OCI configuration.
edit() {
	local new
	new=$(jq "$2 |= (del(.rlimits) | if .oomScoreAdj? // 0 < 0 then del(.oomScoreAdj) else . end
		| if .capabilities then .capabilities |= map_values(. - [\"CAP_SYS_RESOURCE\"]) else . end)" "$1")
	printf '%s\n' "$new" >"$1"
}

bundle=. process='' verb='' previous=''
for word in "$@"; do
	case $previous in
	--bundle | -b) bundle=$word ;;
	--process | -p) process=$word ;;
	esac
	case $word in
	create | run | exec) verb=${verb:-$word} ;;
	--bundle=*) bundle=${word#*=} ;;
	--process=*) process=${word#*=} ;;
	esac
	previous=$word
done
case $verb in
create | run) edit "$bundle/config.json" .process ;;
exec) [ -z "$process" ] || edit "$process" . ;;
esac
exec "$runc" "$@"
