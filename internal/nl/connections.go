package nl

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Connection is a connected socket.
type Connection struct {
	Protocol      uint8 // unix.IPPROTO_TCP or unix.IPPROTO_UDP
	Local, Remote netip.AddrPort
}

// States of TCP (include/net/tcp_states.h), as bits, in which either side may still send.
// A connected UDP socket is established.
const connected = 1<<unix.BPF_TCP_ESTABLISHED | 1<<unix.BPF_TCP_SYN_SENT | 1<<unix.BPF_TCP_FIN_WAIT1 | 1<<unix.BPF_TCP_FIN_WAIT2 |
	1<<unix.BPF_TCP_CLOSE_WAIT | 1<<unix.BPF_TCP_LAST_ACK | 1<<unix.BPF_TCP_CLOSING

// Connections returns the connected TCP and UDP sockets of the calling thread's network
// namespace; none where the kernel has no INET_DIAG, or does not tell.
func Connections() (all []Connection, err error) {
	kinds := []struct {
		name             string // as /proc/net/sockstat has it
		family, protocol uint8
	}{
		{"TCP", unix.AF_INET, unix.IPPROTO_TCP},
		{"TCP6", unix.AF_INET6, unix.IPPROTO_TCP},
		{"UDP", unix.AF_INET, unix.IPPROTO_UDP},
		{"UDP6", unix.AF_INET6, unix.IPPROTO_UDP},
	}
	unused := unusedSockets()
	for _, k := range kinds {
		if unused[k.name] { // most pods have none yet, and to look through the node's sockets takes half a millisecond
			continue
		}
		some, err := connections(k.family, k.protocol)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read sockets: %w", err)
		}
		all = append(all, some...)
	}
	return all, nil
}

// unusedSockets are the kinds of which the namespace has none.
func unusedSockets() map[string]bool {
	unused := map[string]bool{}
	for _, name := range []string{"sockstat", "sockstat6"} {
		text, err := os.ReadFile("/proc/thread-self/net/" + name)
		if err != nil { // it is not known
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			kind, numbers, _ := strings.Cut(lines.Text(), ": ")
			unused[kind] = strings.HasPrefix(numbers+" ", "inuse 0 ")
		}
	}
	return unused
}

// connections asks for those of a family and protocol (struct inet_diag_req_v2 and
// struct inet_diag_msg, linux/inet_diag.h).
func connections(family, protocol uint8) (all []Connection, err error) {
	const requestSize, messageSize = 56, 72
	question := make([]byte, requestSize)
	question[0], question[1] = family, protocol
	binary.NativeEndian.PutUint32(question[4:], connected)
	s, err := OpenSocket(unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	messages, err := s.Dump(nl.SOCK_DIAG_BY_FAMILY, question)
	for _, m := range payloads(messages, nl.SOCK_DIAG_BY_FAMILY) {
		if len(m) < messageSize {
			return nil, errors.New("the kernel's answer is too short")
		}
		c := Connection{protocol, endpoint(m[0], m[8:24], m[4:6]), endpoint(m[0], m[24:40], m[6:8])}
		if c.Remote.Port() != 0 {
			all = append(all, c)
		}
	}
	return all, err
}

// endpoint is an address and port. That of a socket for both families may be of IPv4.
func endpoint(family uint8, address, port []byte) netip.AddrPort {
	if family == unix.AF_INET {
		address = address[:4]
	}
	a, _ := netip.AddrFromSlice(address)
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}
