#!/bin/bash
# images.sh DIR node: makes a node image, with the images of all the cluster's
# pods inside, from DIR/bin and DIR/root, unless Docker has that of the same
# sources, and prints its name. Needs docker, containerd and jq.
# images.sh DIR pods: makes the images of the test's pods alone.
set -euo pipefail

dir=$(cd "${1:?usage: images.sh DIR node|pods}" && pwd)
what=${2:?usage: images.sh DIR node|pods}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
. "$here/versions.sh"
guest=$here/../../build/guest

sources=$(cat "$here"/{binaries.sh,images.sh,runc.sh,flannel.yaml,versions.sh} "$dir"/stamps/* "$dir"/root/*.packages "$guest/sources" | sha256sum | cut -c1-12)
node=localhost/virt-launcher-net/node:$sources
if [ "$what" = node ] && docker image inspect "$node" >/dev/null 2>&1; then
	echo "$node"
	exit
fi

work=$(mktemp -d "$dir/images.XXXXXX")
trap 'rm -rf "$work"' EXIT
pod_images=()

# put TREE FILE PATH: puts a program into a tree.
put() { install -D "$2" "$1/$3"; }

# image TREE ENTRYPOINT NAMES...: makes an image of a tree for pods.
image() {
	local tree=$1 entrypoint=$2 name id
	shift 2
	echo "images.sh: $1" >&2
	mkdir -p "$tree"/{etc,tmp}
	id=$(tar -C "$tree" -c . | docker import -c "ENTRYPOINT $entrypoint" -c 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' -)
	for name; do
		docker tag "$id" "$name"
		pod_images+=("$name")
	done
	rm -rf "$tree"
}

# control_plane NAME TAG PROGRAM: an image with one static program.
control_plane() {
	put "$work/tree" "$dir/bin/$3" "usr/local/bin/$3"
	image "$work/tree" "[\"/usr/local/bin/$3\"]" "registry.k8s.io/$1:$2"
}

# The pods of the cluster itself.
make_control_plane() {
	local program
	control_plane etcd "${etcd#v}-0" etcd
	control_plane coredns/coredns "$coredns" coredns
	control_plane pause "$pause" pause
	for program in kube-apiserver kube-controller-manager kube-scheduler; do
		control_plane "$program" "$kubernetes" "$program"
	done
	mkdir "$work/tree"
	tar -C "$work/tree" -xpf "$dir/root/network.tar"
	put "$work/tree" "$dir/bin/kube-proxy" usr/local/bin/kube-proxy
	image "$work/tree" '[]' "registry.k8s.io/kube-proxy:$kubernetes"
	mkdir "$work/tree"
	tar -C "$work/tree" -xpf "$dir/root/network.tar"
	put "$work/tree" "$dir/bin/flannel" opt/bin/flanneld
	put "$work/tree" "$dir/bin/cni/flannel" opt/cni/bin/flannel
	image "$work/tree" '[]' localhost/virt-launcher-net/flannel:test
}

# The pods of the test.
make_pods() {
	local command
	mkdir "$work/tree"
	tar -C "$work/tree" -xpf "$dir/root/network.tar"
	image "$work/tree" '[]' localhost/virt-launcher-net/network:test
	mkdir "$work/tree"
	tar -C "$work/tree" -xpf "$dir/root/policy.tar"
	for command in {iptables,ip6tables}{,-save,-restore}; do # which its installation would link
		ln -s xtables-nft-multi "$work/tree/usr/sbin/$command"
	done
	put "$work/tree" "$dir/bin/kube-router" usr/local/bin/kube-router
	image "$work/tree" '["/usr/local/bin/kube-router"]' localhost/virt-launcher-net/kube-router:test
	mkdir "$work/tree"
	tar -C "$work/tree" -xpf "$dir/root/launcher.tar"
	mkdir "$work/tree/guest"
	cp "$guest"/{vmlinux,initramfs} "$work/tree/guest/"
	image "$work/tree" '[]' vm-launcher:dev
}

# What kind's own image has, by its Dockerfile, on another base.
make_node() {
	local tree=$1 files unit wanted=etc/systemd/system/multi-user.target.wants
	files=$(GOWORK=off go mod download -json "sigs.k8s.io/kind@$kind" | jq -r .Dir)/images/base/files
	mkdir "$tree"
	tar -C "$tree" -xpf "$dir/root/node.tar"
	cp -r --no-preserve=mode,ownership "$files/." "$tree/"
	chmod 755 "$tree"/kind{,/bin,/bin/*} "$tree"/usr/local/bin/*
	find "$tree/lib/systemd/system/sysinit.target.wants" -name systemd-tmpfiles-setup.service -delete
	rm -f "$tree"/{etc,lib}/systemd/system/*.wants/{*udev*,*initctl*} "$tree"/etc/systemd/system/*.wants/* \
		"$tree"/lib/systemd/system/{multi-user,local-fs,basic}.target.wants/*
	echo ReadKMsg=no >>"$tree/etc/systemd/journald.conf"
	ln -sf /usr/lib/systemd/systemd "$tree/sbin/init"
	mkdir -p "$tree/$wanted"
	for unit in containerd kubelet undo-mount-hacks; do
		ln -s "/etc/systemd/system/$unit.service" "$tree/$wanted/"
	done
	ln -s /dev/null "$tree/etc/systemd/system/systemd-binfmt.service"
	mkdir -p "$tree"/{etc/kubernetes/manifests,etc/cni/net.d,kind/manifests,opt/cni/bin}
	echo "$kubernetes" >"$tree/kind/version"
	cp "$here/flannel.yaml" "$tree/kind/manifests/default-cni.yaml"

	install -t "$tree/usr/bin" "$dir"/bin/{kubeadm,kubectl,kubelet}
	install -t "$tree/opt/cni/bin" "$dir"/bin/cni/{bridge,host-local,loopback,portmap,ptp}
	install "$here/runc.sh" "$tree/usr/local/sbin/runc"
	ln -s /usr/bin/containerd "$tree/usr/local/bin/"
	ctr oci spec | jq 'del(.process.rlimits)
		| .hooks.createContainer += [{path: "/kind/bin/mount-product-files.sh"}]' >"$tree/etc/containerd/cri-base.json"
	sed -i "s/restrict_oom_score_adj = false/restrict_oom_score_adj = true/; s/pause:[0-9.]*/pause:$pause/" \
		"$tree/etc/containerd/config.toml"
}

# import TREE: gives the node's containerd the pods' images.
import() {
	local tree=$1 daemon
	mkdir "$work/containerd"
	cat >"$work/containerd.toml" <<-END
		version = 2
		root = "$tree/var/lib/containerd"
		state = "$work/containerd"
		disabled_plugins = ["io.containerd.grpc.v1.cri"]
		[grpc]
		  address = "$work/containerd.sock"
	END
	containerd -c "$work/containerd.toml" >"$work/containerd.log" 2>&1 &
	daemon=$!
	until ctr -a "$work/containerd.sock" version >/dev/null 2>&1; do
		kill -0 "$daemon" || { cat "$work/containerd.log" >&2; return 1; }
		sleep 0.1
	done
	docker save "${pod_images[@]}" | ctr -a "$work/containerd.sock" -n k8s.io images import --no-unpack - >&2
	kill "$daemon"
	wait "$daemon" || true
}

make_pods
[ "$what" = node ] || exit 0
make_control_plane
echo "images.sh: $node" >&2
docker image ls --format '{{.Repository}}:{{.Tag}}' "${node%:*}" | xargs -r docker image rm >/dev/null # of other sources
make_node "$work/node"
import "$work/node"
tar -C "$work/node" -c . | docker import -c 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' \
	-c 'ENV container=docker' - "$node" >&2
echo "$node"
