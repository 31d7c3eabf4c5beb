#!/bin/bash
# binaries.sh DIR NAMES...: builds programs from Go modules into DIR/bin, each
# whose version it does not find there yet: kubernetes, kubectl, pause, etcd,
# coredns, flannel, flannel_plugin, cni_plugins, kube_router, kind. All of them take a quarter
# of an hour the first time on two cores. Needs go and gcc.
set -euo pipefail

out=$(mkdir -p "${1:?usage: binaries.sh DIR NAMES...}" && cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.sh
. "$here/versions.sh"

mkdir -p "$out/bin" "$out/src" "$out/stamps"
export CGO_ENABLED=0 GOWORK=off

# once NAME VERSION: builds a program if it has not built this version of it.
once() {
	local stamp=$out/stamps/$1
	[ "$(cat "$stamp" 2>/dev/null)" = "$2" ] && return
	echo "binaries.sh: $1 $2" >&2
	rm -f "$stamp"
	"build_$1"
	echo "$2" >"$stamp"
}

# module DIR MODULE@VERSION: makes DIR a module with the requirements of
# another, so that the other's programs are built from what it was tested with.
module() {
	local dir=$1 name=${2%@*} version=${2#*@} gomod
	gomod=$(go mod download -json "$2" | sed -n 's/^\t"GoMod": "\(.*\)",$/\1/p')
	mkdir -p "$dir"
	# Replacements by directories beside the other module are not for us. What
	# Kubernetes has in staging, without a version, is also published, as v0.X.Y
	# for Kubernetes v1.X.Y.
	awk -v staging="v0.${version#v1.}" '
		/^module / { print "module cluster"; next }
		/=> \.\/staging/ { name = $1 == "replace" ? $2 : $1; print $1 == "replace" ? "replace" : "", name, "=>", name, staging; next }
		/=> \.\.?\// { next }
		{ print }' "$gomod" >"$dir/go.mod"
	(cd "$dir" && go mod edit -require="$name@$version")
}

# compile DIR OUTPUT PACKAGE FLAGS...: builds a program of the module made there.
compile() {
	local dir=$1 output=$2 package=$3
	shift 3
	(cd "$dir" && nice -n 10 go build -mod=mod -buildvcs=false -trimpath -ldflags '-s -w' "$@" -o "$output" "$package")
}

# kubernetes_programs NAMES...: builds programs of Kubernetes.
kubernetes_programs() {
	local dir=$out/src/kubernetes version=k8s.io/component-base/version minor program
	minor=$(cut -d. -f2 <<<"$kubernetes")
	module "$dir" "k8s.io/kubernetes@$kubernetes"
	for program; do
		compile "$dir" "$out/bin/" "k8s.io/kubernetes/cmd/$program" -ldflags \
			"-s -w -X $version.gitVersion=$kubernetes -X $version.gitMajor=1 -X $version.gitMinor=$minor"
	done
}

build_kubernetes() { kubernetes_programs kubeadm kubelet kube-apiserver kube-controller-manager kube-scheduler kube-proxy; }
build_kubectl() { kubernetes_programs kubectl; }

build_pause() {
	local dir
	dir=$(go mod download -json "k8s.io/kubernetes@$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	gcc -Os -Wall -static -DVERSION="$pause" -o "$out/bin/pause" "$dir/build/pause/linux/pause.c"
	strip "$out/bin/pause"
}

# module_programs NAME MODULE@VERSION OUTPUT PACKAGES...
module_programs() {
	local dir=$out/src/$1 module=$2 output=$3 package
	shift 3
	module "$dir" "$module"
	mkdir -p "$(dirname "$output")"
	for package; do
		compile "$dir" "$output" "$package"
	done
}

build_etcd() { module_programs etcd "go.etcd.io/etcd/server/v3@$etcd" "$out/bin/etcd" go.etcd.io/etcd/server/v3; }

# With the plugins of kubeadm's configuration alone: the others, for clouds and
# tracing, take minutes to compile.
build_coredns() {
	local dir=$out/src/coredns plugin
	module "$dir" "github.com/coredns/coredns@$coredns"
	{
		printf 'package main\n\nimport (\n\t"github.com/coredns/coredns/coremain"\n'
		for plugin in cache errors forward health kubernetes loadbalance loop metrics ready reload; do
			printf '\t_ "github.com/coredns/coredns/plugin/%s"\n' "$plugin"
		done
		printf ')\n\nfunc main() { coremain.Run() }\n'
	} >"$dir/main.go"
	compile "$dir" "$out/bin/coredns" .
}

build_flannel() { # one of its backends is in C
	module "$out/src/flannel" "github.com/flannel-io/flannel@$flannel"
	CGO_ENABLED=1 compile "$out/src/flannel" "$out/bin/flannel" github.com/flannel-io/flannel \
		-tags netgo,osusergo -ldflags '-s -w -linkmode external -extldflags -static'
}
build_kube_router() { module_programs kube_router "$router@$kube_router" "$out/bin/" "$router/cmd/kube-router"; }
build_kind() { module_programs kind "sigs.k8s.io/kind@$kind" "$out/bin/kind" sigs.k8s.io/kind; }

plugins=github.com/containernetworking/plugins
router=github.com/cloudnativelabs/kube-router/v2
build_flannel_plugin() { module_programs flannel_plugin "$plugins@$flannel_plugin" "$out/bin/cni/" "$plugins/plugins/meta/flannel"; }
build_cni_plugins() {
	mkdir -p "$out/bin/cni"
	module_programs cni_plugins "$plugins@$cni_plugins" "$out/bin/cni/" \
		"$plugins"/plugins/{main/{bridge,loopback,ptp},ipam/host-local,meta/portmap}
}

for name in "${@:2}"; do
	case $name in
	kubectl) once kubectl "$kubernetes" ;;
	*) once "$name" "${!name}" ;;
	esac
done
