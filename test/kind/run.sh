#!/bin/bash
# run.sh DIR COMMAND...: runs a command with a two-node Kubernetes cluster, whose
# kubeconfig and kubectl it finds. If Docker runs here and has an image
# kindest/node, kind makes the cluster of that; else of programs that are
# compiled and Debian packages, by a Docker daemon of its own in namespaces of
# its own. What takes long is kept in DIR. Needs root.
set -euo pipefail

dir=$(mkdir -p "${1:?usage: run.sh DIR COMMAND...}" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shift

exec 9>"$dir/lock"
flock --nonblock 9 || { echo "run.sh: another run uses $dir" >&2; exit 1; }

image=$(docker image ls --format '{{.Repository}}:{{.Tag}}' kindest/node 2>/dev/null | head -n 1 || true)
if [ -n "$image" ]; then
	"$here/binaries.sh" "$dir" kubectl kube_router kind
	"$here/debian.sh" "$dir" network policy launcher
	exec "$here/cluster.sh" "$dir" "$image" "$@"
fi

"$here/binaries.sh" "$dir" kubernetes kubectl pause etcd coredns flannel flannel_plugin cni_plugins kube_router kind
"$here/debian.sh" "$dir" network policy node launcher

"$here/groups.sh" # of a run that was killed
trap '"$here/groups.sh"' EXIT

# Whatever ends this script ends all of it.
setpriv --pdeathsig KILL unshare --mount --net --pid --ipc --fork --kill-child \
	"$here/engine.sh" "$dir" "$here/cluster.sh" "$dir" '' "$@"
