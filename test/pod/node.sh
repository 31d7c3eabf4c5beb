#!/bin/bash
# node.sh PLUGINS: makes a Kubernetes-like node for podman out of the namespaces
# it is started in as process 1: directories of its own where podman and the CNI
# plugins write, and a network on which flannel would have its bridge plugin
# put the pods. PLUGINS is the directory of the CNI plugins. Says "ready", then
# stays and reaps orphans.
set -euo pipefail

plugins=${1:?usage: node.sh PLUGINS}

mount --make-rprivate /
mount -t proc proc /proc
mkdir -p /var/lib/cni /var/lib/containers /etc/cni /etc/containers
for dir in /run /var/lib/cni /var/lib/containers /etc/cni /etc/containers; do
	mount -t tmpfs none "$dir"
done
mkdir /etc/cni/net.d /run/lock

cat >/etc/containers/policy.json <<-'END'
	{"default": [{"type": "insecureAcceptAnything"}]}
END
cat >/etc/containers/containers.conf <<-END
	[containers]
	log_driver = "k8s-file"
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "none"
	runtime = "runc"
	[network]
	network_backend = "cni"
	cni_plugin_dirs = ["$plugins"]
	default_network = "cbr0"
END
# What flannel's plugin delegates on a node with the subnet 10.244.1.0/24 of
# 10.244.0.0/16 over VXLAN.
cat >/etc/cni/net.d/10-flannel.conflist <<-'END'
	{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{
	  "type": "bridge", "bridge": "cni0", "mtu": 1450, "hairpinMode": true,
	  "isGateway": true, "isDefaultGateway": true, "ipMasq": false,
	  "ipam": {"type": "host-local", "dataDir": "/run/cni",
	    "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "10.244.0.0/16"}]}}]}
END
echo ready
exec catatonit -P
