package flood_test

import (
	"bytes"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// solicitationHead is what comes after a solicitation's checksum and before its
// options (RFC 4861 §4.1).
const solicitationHead = 4

// solicitations are all the ways to ask for a router, in good frames.
func (h hostile6) solicitations() kinds {
	with := func(options ...byte) []byte {
		return h.solicit(linkLocal, append(make([]byte, solicitationHead), options...))
	}
	return kinds{
		"plain":             func() []byte { return with() },
		"from nobody":       func() []byte { return h.solicit(nobody, make([]byte, solicitationHead)) },
		"with its MAC":      func() []byte { return h.solicit(linkLocal, h.solicitation()) },
		"with another MAC":  func() []byte { return with(append([]byte{1, 1}, h.bytes(6)...)...) },
		"unknown options":   func() []byte { return with(bytes.Repeat([]byte{255, 1, 0, 0, 0, 0, 0, 0}, h.random.IntN(200))...) },
		"option of nothing": func() []byte { return with(1, 0, 0, 0, 0, 0, 0, 0) },
		"option too long":   func() []byte { return with(1, 2, 0, 0, 0, 0, 0, 0) },
		"half an option":    func() []byte { return with(1) },
		"to the router":     func() []byte { return solicitation6(h.mac, linkLocal, h.router, h.solicitation()) },
		"with a code":       func() []byte { return h.icmp(routerSolicitation, byte(1+h.random.IntN(255))) },
		// Nobody looks at these, and the guard stops them.
		"advertisement": func() []byte { return h.icmp(134, 0) },
		"redirect":      func() []byte { return h.icmp(137, 0) },
	}
}

// solicitation is one with the guest's MAC, from after its checksum on.
func (h hostile6) solicitation() []byte {
	return append([]byte{solicitationHead: 1, 1}, h.mac...)
}

func (h hostile6) solicit(from netip.Addr, body []byte) []byte {
	return solicitation6(h.mac, from, allRouters, body)
}

func (h hostile6) icmp(kind, code byte) []byte {
	return podtest.IPv6Frame(h.mac, groupMAC(allRouters), linkLocal, allRouters, unix.IPPROTO_ICMPV6, 255,
		append([]byte{kind, code, 0, 0}, h.solicitation()...))
}
