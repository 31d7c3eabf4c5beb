# shellcheck shell=bash disable=SC2034
# The versions the cluster is made of, for the scripts beside this file. etcd,
# CoreDNS and pause are those that this Kubernetes' kubeadm asks for.
kubernetes=v1.34.4
kind=v0.33.0
etcd=v3.6.5
coredns=v1.12.1
pause=3.10.1
flannel=v0.26.7
flannel_plugin=v0.9.1 # of the CNI project's plugins: the last that had flannel's
cni_plugins=v1.9.1
kube_router=v2.1.0 # enforces NetworkPolicy, which flannel does not
debian=bookworm
