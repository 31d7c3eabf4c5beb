# Builds, tests and shows virt-launcher-net. `make` lists the targets.

SHELL         := /bin/bash
.SHELLFLAGS   := -euo pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
FUZZTIME ?= 20s
BENCH    ?= .
DEMO     ?=
IMAGE    ?= virt-launcher-net:dev
PREFIX   ?= /usr/local
# Kubernetes, compiled: kept outside of the checkout, since it takes a quarter of an hour.
KIND_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/virt-launcher-net/kind
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# With this tag libvirt is opened when the program starts, if it is there, and
# neither its headers nor the library are needed to build.
TAGS := -tags libvirt_dlopen
TOOL := $(GO) tool -modfile=tools/go.mod
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)

# Tests mostly wait, so more of them at once than there are processors. Without paths in
# them (-trimpath) packages come from Go's cache, also those of another checkout. What only
# a debugger reads is not linked (-s -w), which halves that. go vet is a part of make lint.
GOTEST := $(TAGS) -trimpath -ldflags='-s -w' -count=1 -vet=off -parallel 8 -timeout 25m
# Tests and compilers have memory enough and collect garbage less often, which is a tenth
# of their CPU time. The programs that tests start don't (internal/podtest).
test test-redirect: export GOGC ?= 400
# TEST is go test, to which PACKAGES come first. With RERUN=1, as CI has it, a test that fails is run
# again by itself, and all that it took is told: CI's machine may be the busy one.
TEST = $(GO) test $(PACKAGES)
ifneq ($(RERUN),)
TEST = $(TOOL) gotestsum --format standard-quiet --packages "$$(echo $(PACKAGES))" \
	--rerun-fails=1 --rerun-fails-abort-on-data-race --
endif
# What is tested without the race detector, and why: see docs/testing.md. In both
# lists those that take longest come first.
NO_RACE := ./test/clients ./pkg/prepare ./test/vm ./test/netboot ./test/flood ./pkg/prepare/... ./examples/... ./internal/podtest/... ./test/... \
	./internal/{bpf,metric,probe,tun} ./pkg/{cniplugin,guest,mac,metrics,netboot}
RACE    := ./pkg/prestart ./pkg/domain ./cmd/... ./pkg/agent ./...

# Where the tests find the binary, the CNI plugins and the guest.
export VLN_BUILD := $(CURDIR)/build

DEBIAN_PACKAGES := busybox-static ca-certificates catatonit cpio curl dbus-daemon dhcpcd-base \
	dnsmasq-base gcc git iproute2 iptables iputils-arping iputils-ping ipxe ipxe-qemu \
	isc-dhcp-client jq kmod libc6-dev libvirt-clients libvirt-daemon libvirt-daemon-driver-qemu lz4 \
	make mmdebstrap nftables ovmf podman qemu-system-x86 runc strace systemd tcpdump udhcpc xz-utils zstd
# What makes a Kubernetes cluster, the latter where Docker has no kindest/node.
KIND_PACKAGES        := mmdebstrap
KIND_ENGINE_PACKAGES := containerd docker.io iptables runc util-linux
CNI := github.com/containernetworking/plugins/plugins

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build build/virt-launcher-net
	$(GO) build $(TAGS) -trimpath -ldflags '-X main.version=$(VERSION)' -o build/ ./cmd/virt-launcher-net

# So that root, who may have no go, installs what there is.
build/virt-launcher-net:
	$(MAKE) --no-print-directory build

.PHONY: install
install: build/virt-launcher-net ## install the program, its manual and completions below PREFIX (/usr/local), in DESTDIR if given
	install -D -m 755 build/virt-launcher-net -t $(DESTDIR)$(PREFIX)/bin
	install -D -m 644 docs/man/*.1 -t $(DESTDIR)$(PREFIX)/share/man/man1
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	build/virt-launcher-net completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/virt-launcher-net
	build/virt-launcher-net completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_virt-launcher-net
	build/virt-launcher-net completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/virt-launcher-net.fish

.PHONY: uninstall
uninstall: ## remove what install has put there
	rm -f $(DESTDIR)$(PREFIX)/bin/virt-launcher-net $(patsubst docs/man/%,$(DESTDIR)$(PREFIX)/share/man/man1/%,$(wildcard docs/man/*.1)) \
		$(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions/virt-launcher-net zsh/site-functions/_virt-launcher-net fish/vendor_completions.d/virt-launcher-net.fish)

.PHONY: docs
docs: ## write docs/cli.md and the manual pages from the help texts, and docs/*.svg with dot(1)
	$(GO) test $(TAGS) ./cmd/virt-launcher-net -run Reference -update
	for picture in docs/*.dot; do dot -Tsvg "$$picture" -o "$${picture%.dot}.svg"; done

.PHONY: image
image: ## build the container image IMAGE (virt-launcher-net:dev), and IMAGE-amd64 and IMAGE-arm64, by ENGINE (docker or podman)
	@engine=$${ENGINE:-}; archs='amd64 arm64'; \
	for e in docker podman; do \
		if [ -z "$$engine" ] && $$e info >/dev/null 2>&1; then engine=$$e; fi; \
	done; \
	if [ -z "$$engine" ]; then echo 'make image needs a docker whose daemon runs, or podman (ENGINE=... names another engine)' >&2; exit 1; fi; \
	export DOCKER_BUILDKIT=1; \
	if ! $$engine build --help >/dev/null 2>&1; then \
		export DOCKER_BUILDKIT=0; archs=$$($(GO) env GOARCH); \
		echo "$$engine has no BuildKit (buildx): an image for $$archs only" >&2; \
	fi; \
	for arch in $$archs; do \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' \
			-o build/image/linux/$$arch/ ./cmd/virt-launcher-net; \
		(set -x; $$engine build --quiet --platform linux/$$arch --build-arg TARGETOS=linux --build-arg TARGETARCH=$$arch \
			--build-arg VERSION=$(VERSION) --tag $(IMAGE)-$$arch .); \
	done; \
	(set -x; $$engine tag $(IMAGE)-$$($(GO) env GOARCH) $(IMAGE))

.PHONY: demo
demo: deps build cni guest ## boot a VM on a pod's network and show it, as root; DEMO=calico for a Calico pod, DEMO=dual for one with IPv6, DEMO=redirect for one that keeps its network
	$(GO) build $(TAGS) -o build/ ./test/demo
	$(SUDO) env DEMO=$(DEMO) build/demo

.PHONY: test
test: deps build cni guest debian ## run the tests, as root; ALLOW_SKIP=1 skips what the machine cannot do
	@status=0; \
	$(MAKE) --no-print-directory --keep-going --jobs=2 test-plain test-race || status=1; \
	echo 'Left out: the datapath redirect in VMs, clients and hostile guests (make test-redirect), every system call killed and failed (make test-long), containers (make test-pod), Kubernetes (make test-kind), other kernels (make test-kernels).'; \
	exit $$status

.PHONY: test-plain test-race
test-plain: PACKAGES = $(NO_RACE)
test-plain: # the tests without the race detector, four packages at once: they mostly wait
	$(TEST) $(GOTEST) -p 4 -parallel 12

test-race: PACKAGES = $$($(GO) list $(TAGS) $(RACE) | grep -vxFf <($(GO) list $(TAGS) $(NO_RACE)))
test-race: # the others, with it, whose programs would each sleep a second before they end
	GORACE="atexit_sleep_ms=0 $${GORACE:-}" $(TEST) $(GOTEST) -race

# The suites of make test that are not about one datapath.
BY_DATAPATH := ./test/clients ./pkg/prestart ./test/flood ./test/netboot ./test/vm

.PHONY: test-redirect
test-redirect: PACKAGES = $(BY_DATAPATH)
test-redirect: deps build cni guest debian ## run clients, VMs, firmware and hostile guests of make test by the datapath redirect, as root, some minutes
	VLN_TEST_DATAPATH=redirect $(TEST) $(GOTEST) -v -p 3

.PHONY: test-long
test-long: deps build ## have strace kill the program at, and fail, each system call that changes something, by each datapath, as root, some minutes
	VLN_TEST_LONG=1 $(GO) test -count=1 -v -parallel 4 -timeout 60m ./test/strace

.PHONY: test-kernels
test-kernels: PACKAGES = ./test/kernels
test-kernels: deps kernels ## boot Linux 5.10, 6.1 and 6.12 in QEMU and test the program in each, 3-5 minutes
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o build/kernels/programs/ ./cmd/virt-launcher-net
	CGO_ENABLED=0 $(GO) build -modfile=tools/go.mod -trimpath -ldflags '-s -w' -o build/kernels/programs/cni/ $(CNI)/main/host-device $(CNI)/ipam/static
	CGO_ENABLED=0 $(GO) test -c -trimpath -ldflags '-s -w' -o build/kernels/programs/inside.test ./test/kernels/inside
	VLN_TEST_KERNELS=1 $(TEST) -count=1 -v -parallel 5 -timeout 25m

.PHONY: static
static: # what the image of this machine's architecture holds
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' \
		-o build/image/linux/$$($(GO) env GOARCH)/ ./cmd/virt-launcher-net

.PHONY: test-pod
test-pod: PACKAGES = ./test/pod
test-pod: deps cni guest static ## run the program as a sidecar in a pod of containers, as root
	VLN_TEST_POD=1 $(TEST) -count=1 -v -timeout 5m

.PHONY: test-kind
test-kind: deps guest static ## run VMs in pods of a two-node Kubernetes cluster, as root; KEEP=1 gives a shell in it; what it compiles is kept in KIND_DIR
	@packages='$(KIND_PACKAGES)'; \
	[ -n "$$(docker image ls -q kindest/node 2>/dev/null)" ] || packages+=' $(KIND_ENGINE_PACKAGES)'; \
	$(MAKE) --no-print-directory deps DEBIAN_PACKAGES="$$packages"
	$(GO) test -c -o build/ ./test/kind
	cd test/kind && $(SUDO) ./run.sh $(KIND_DIR) $(CURDIR)/build/kind.test -test.v -test.timeout 15m

.PHONY: test-short
test-short: ## run the tests that need no privileges, no packages and no VM
	ALLOW_SKIP=1 $(GO) test $(TAGS) -short ./cmd/... ./internal/... ./pkg/...

.PHONY: lint
lint: ## check style, formatting and the import table
	$(TOOL) golangci-lint config verify
	$(TOOL) golangci-lint run
	CGO_ENABLED=0 $(GO) vet ./...

.PHONY: fmt
fmt: ## format the code
	$(TOOL) golangci-lint fmt

.PHONY: vuln
vuln: ## look for known vulnerabilities in what the program calls; asks the Go vulnerability database
	$(TOOL) govulncheck $(TAGS) ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (20s)
	test/fuzz/fuzz.sh $(FUZZTIME) $(TAGS)

.PHONY: bench
bench: deps build guest ## compare with other DHCP servers, a script and bare calls, boot guests, start 300 pods, as root; run the benchmarks that match BENCH (all)
	CGO_ENABLED=0 $(GO) build -trimpath -o build/bench/ ./cmd/virt-launcher-net ./test/bench
	$(SUDO) test/bench/fetch.sh build/bench/debian
	$(SUDO) nice -n -20 build/bench/bench $(BENCHFLAGS)
	$(GO) test $(TAGS) -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: cni
cni: ## build the CNI plugins of the demo and the tests into build/cni
	$(GO) build -modfile=tools/go.mod -o build/cni/ $(CNI)/main/bridge $(CNI)/main/host-device $(CNI)/main/macvlan $(CNI)/main/ptp \
		$(CNI)/ipam/dhcp $(CNI)/ipam/host-local $(CNI)/ipam/static \
		$(CNI)/meta/bandwidth $(CNI)/meta/firewall $(CNI)/meta/portmap $(CNI)/meta/sbr $(CNI)/meta/tuning

.PHONY: guest
guest: deps ## build the guest of the demo and the tests into build/guest
	test/guest/build.sh build/guest

.PHONY: debian
debian: guest ## build the Debian guest of the tests into build/guest
	test/guest/debian.sh build/guest

.PHONY: kernels
kernels: deps # what make test-kernels boots
	test/kernels/build.sh build/kernels

.PHONY: deps
deps: ## install the Debian packages that the demo and the tests need
	@if ! command -v dpkg-query >/dev/null; then \
		echo "No Debian here. Needed is what these packages hold: $(DEBIAN_PACKAGES)" >&2; \
		exit; \
	fi; \
	missing=$$(comm -23 <(printf '%s\n' $(DEBIAN_PACKAGES) | sort) <(dpkg-query -W \
		-f '$${db:Status-Status} $${Package}\n' $(DEBIAN_PACKAGES) 2>/dev/null | sed -n 's/^installed //p' | sort -u)); \
	if [ -n "$$missing" ]; then \
		$(SUDO) apt-get update; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	fi

.PHONY: clean
clean: ## remove build/; KIND_DIR (~/.cache/virt-launcher-net/kind) stays
	rm -rf build
