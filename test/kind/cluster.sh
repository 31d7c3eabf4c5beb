#!/bin/bash
# cluster.sh DIR IMAGE COMMAND...: runs a command with a kind cluster, whose
# kubeconfig and kubectl it finds, and deletes the cluster after it. Its nodes
# are of that image, or if it is '' of one that is made from what is in DIR.
# With KEEP=1 there is a shell in between to look at the cluster.
set -euo pipefail

dir=$(cd "${1:?usage: cluster.sh DIR IMAGE COMMAND...}" && pwd)
image=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
shift 2
name=virt-launcher-net
export KUBECONFIG=$dir/kubeconfig PATH=$dir/bin:$PATH KIND_CLUSTER=$name

# step COMMAND...: runs a command and says how long it took; what it printed only
# if it failed.
step() {
	local start=$SECONDS result=0
	"$@" >"$dir/step.log" 2>&1 || result=$?
	if ((result)); then
		echo "cluster.sh: failed: $*" >&2
		cat "$dir/step.log" >&2
		return "$result"
	fi
	echo "cluster.sh: $((SECONDS - start)) s: $*" >&2
}

# delete_cluster deletes the cluster, or what a run that was killed left of it.
delete_cluster() {
	for _ in 1 2 3 4; do
		kind delete cluster --name "$name" && return 0
		"$here/groups.sh" # something in a node may be frozen
	done
	kind delete cluster --name "$name"
}

# Says what the cluster was like, and takes it down.
finish() {
	local result=$?
	trap '' INT TERM
	if [ "${KEEP:-}" = 1 ]; then
		echo 'cluster.sh: kubectl, kind and docker work in this shell; exit takes the cluster down' >&2
		bash -i || true
	fi
	if ((result)); then
		kubectl get nodes,pods --all-namespaces -o wide >&2 || true
		rm -rf "$dir/logs"
		kind -q export logs "$dir/logs" --name "$name" >/dev/null || true
		echo "cluster.sh: logs of nodes and pods are in $dir/logs" >&2
	fi
	step delete_cluster || true
	exit "$result"
}

load() {
	docker build --quiet --build-arg TARGETOS=linux --build-arg "TARGETARCH=$(go env GOARCH)" --tag virt-launcher-net:dev "$here/../.."
	docker build --quiet --tag vm-launcher-node:dev "$here/../../examples/vm-pod/node"
	kind load docker-image virt-launcher-net:dev --name "$name"
	kind load docker-image vm-launcher-node:dev --name "$name" --nodes "$name-worker"
}

# open_tun NODE: gives the node's containers /dev/net/tun, as a device plugin would.
# Its mode is as udev has it.
open_tun() {
	docker exec -i "$1" bash -euo pipefail <<-'END'
		chmod 666 /dev/net/tun
		spec=/etc/containerd/cri-base.json
		new=$(jq '.linux.resources.devices += [{allow: true, type: "c", major: 10, minor: 200, access: "rwm"}]
			| .linux.devices += [{path: "/dev/net/tun", type: "c", major: 10, minor: 200, fileMode: 438, uid: 0, gid: 0}]' $spec)
		printf '%s\n' "$new" >$spec
		systemctl restart containerd
	END
}

# room says how to make some where the nodes' disks are, if less is free than two nodes
# write; a node without any fails later in words of its own.
room() {
	local root free needed=8
	root=$(docker info --format '{{.DockerRootDir}}')
	free=$(($(df --output=avail "$root" | tail -n 1) >> 20))
	if ((free < needed)); then
		echo "cluster.sh: $root has $free GiB free, the cluster needs $needed: free some, for example by 'docker system prune' or 'go clean -cache'" >&2
		return 1
	fi
}

rm -f "$KUBECONFIG" "$KUBECONFIG.lock" # of a run that was killed
step delete_cluster
room
trap finish EXIT
create=(kind create cluster --name "$name" --config "$here/kind.yaml" --wait 2m)
if [ -z "$image" ]; then
	image=$("$here/images.sh" "$dir" node)
	step "${create[@]}" --image "$image"
else
	"$here/images.sh" "$dir" pods
	step "${create[@]}" --image "$image"
	step kind load docker-image localhost/virt-launcher-net/{network,kube-router}:test vm-launcher:dev --name "$name"
fi
step kubectl taint node "$name-control-plane" node-role.kubernetes.io/control-plane-
step load
for node in $(kind -q get nodes --name "$name"); do
	step open_tun "$node"
done
step kubectl -n kube-system rollout status deployment/coredns --timeout=120s

"$@"
