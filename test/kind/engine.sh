#!/bin/bash
# engine.sh DIR COMMAND...: runs a command with a Docker daemon of its own, whose
# images and containers are in DIR/docker. Is started as process 1 of new
# namespaces: what it starts sees the network of these alone, writes below /run
# for itself, and is gone when it ends, however that happens.
set -euo pipefail

dir=${1:?usage: engine.sh DIR COMMAND...}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shift

trap : INT TERM # the command ends by them, the daemon after it
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs none /run
mkdir /run/lock
ip link set lo up

mkdir -p "$dir/docker"
setsid dockerd --host unix:///run/docker.sock --data-root "$dir/docker" --storage-driver overlay2 \
	--cgroup-parent /vln-kind --add-runtime "node=$here/runc.sh" --default-runtime node \
	>"$dir/dockerd.log" 2>&1 &
daemon=$!
export DOCKER_HOST=unix:///run/docker.sock

until docker version >/dev/null 2>&1; do
	if ! kill -0 "$daemon" 2>/dev/null; then
		echo 'engine.sh: dockerd has ended:' >&2
		tail "$dir/dockerd.log" >&2
		exit 1
	fi
	sleep 0.2
done

result=0
"$@" || result=$?
docker image prune --force >/dev/null || true # images of commits before
kill "$daemon"
wait "$daemon" || true
exit "$result"
