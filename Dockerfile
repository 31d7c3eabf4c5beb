# The program alone. `make image` builds the static binaries with Go, and from
# them an image for each architecture: nothing is pulled. For a registry, after
# that:
#
#	docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/virt-launcher-net:TAG --push .
#
# It runs as root for the sake of /run and /dev/net/tun, and needs of root's
# privileges no more than the capabilities NET_ADMIN and NET_RAW.
FROM scratch
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=unknown
LABEL org.opencontainers.image.title="virt-launcher-net" \
	org.opencontainers.image.description="Gives a VM in a Kubernetes pod the pod's network" \
	org.opencontainers.image.source="https://github.com/virt-launcher-net/virt-launcher-net" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="${VERSION}"
COPY build/image/${TARGETOS}/${TARGETARCH}/virt-launcher-net /virt-launcher-net
ENTRYPOINT ["/virt-launcher-net"]
