package main

import (
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// warnOfVMs warns where the VM gets what is sent to a listener of the pod: at an address of
// its own, whose port the pod does not keep.
func warnOfVMs(log *slog.Logger, listener net.Addr, interfaces []prestart.Interface) {
	tcp, ok := listener.(*net.TCPAddr)
	if !ok {
		return
	}
	at := tcp.AddrPort()
	for _, i := range interfaces {
		if isPods(i, at.Port()) {
			continue
		}
		for _, a := range i.Addresses {
			if at.Addr().IsUnspecified() || at.Addr().Unmap() == a.Addr() {
				log.Warn("who asks the pod for probes and metrics asks the VM", "interface", i.Interface, "address", netip.AddrPortFrom(a.Addr(), at.Port()),
					"remedy", "with --datapath redirect, let the pod keep the port: --pod-ports "+strconv.Itoa(int(at.Port()))+"; else listen on unix:PATH")
			}
		}
	}
}

// isPods tells whether the pod keeps a TCP port of an interface.
func isPods(i prestart.Interface, port uint16) bool {
	in := func(p guest.Ports) bool {
		return slices.ContainsFunc(p.TCP, func(r guest.PortRange) bool { return r.First <= port && port <= r.Last })
	}
	if i.VMPorts.IsZero() {
		return in(i.PodPorts)
	}
	return !in(i.VMPorts)
}
