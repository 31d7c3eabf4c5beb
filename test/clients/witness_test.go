package clients

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// message is one that was seen on the tap: of DHCP, DHCPv6 or router discovery.
type message struct {
	six       bool   // by IPv6
	kind      string // DISCOVER, SOLICIT, RA, …
	raw       []byte // without the headers that carry it
	client    bool   // sent by the guest
	broadcast bool   // to everybody, by its Ethernet address
	renewal   bool   // of a client that has its address
}

// witness sees all messages on a tap, both ways, in the kernel's order.
type witness struct {
	file *os.File
	mac  net.HardwareAddr
	seen []message
}

// newWitness listens on the tap of a pod until the test's end.
func newWitness(t *testing.T, pod *podtest.Pod) *witness {
	t.Helper()
	w := &witness{mac: pod.MAC}
	if err := pod.Do(func() error {
		tap, err := net.InterfaceByName("tap-eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		w.file = os.NewFile(uintptr(fd), "tap-eth0")
		// Only a socket for all protocols sees what is sent as well.
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		return os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: tap.Index}))
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.file.Close() })
	return w
}

// await reads until there was a message as wanted, which it returns.
func (w *witness) await(t *testing.T, what string, want func(message) bool) message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	frame := make([]byte, 1<<16)
	for {
		n, err := w.file.Read(frame)
		if errors.Is(err, unix.ENETDOWN) {
			continue
		}
		if err != nil {
			t.Fatalf("no %s: %v; seen: %v", what, err, w.types())
		}
		m, ok := w.parse(slices.Clone(frame[:n]))
		if !ok {
			continue
		}
		w.seen = append(w.seen, m)
		if want(m) {
			return m
		}
	}
}

// parse finds the message in a frame that has no IP options.
func (w *witness) parse(frame []byte) (message, bool) {
	const eth = 14
	if len(frame) < eth {
		return message{}, false
	}
	m := message{client: bytes.Equal(frame[6:12], w.mac), broadcast: frame[0]&1 != 0}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_IP:
		return m, m.read4(frame[eth:])
	case unix.ETH_P_IPV6:
		return m, m.read6(frame[eth:])
	}
	return m, false
}

// read4 reads a message of DHCP from a packet.
func (m *message) read4(packet []byte) bool {
	const ip, udp = 20, 8
	if len(packet) < ip+udp || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP {
		return false
	}
	end := ip + int(binary.BigEndian.Uint16(packet[ip+4:]))
	if port := binary.BigEndian.Uint16(packet[ip+2:]); port != 67 && port != 68 || end > len(packet) {
		return false
	}
	m.raw = packet[ip+udp : end]
	d, err := dhcpv4.FromBytes(m.raw)
	if err != nil {
		return false
	}
	m.kind = d.MessageType().String()
	m.renewal = d.MessageType() == dhcpv4.MessageTypeRequest && !d.ClientIPAddr.IsUnspecified() // RFC 2131 §4.3.2
	return true
}

// read6 reads a message of DHCPv6 or router discovery from a packet.
func (m *message) read6(packet []byte) bool {
	const ip, udp = 40, 8
	if len(packet) < ip+udp {
		return false
	}
	m.six, m.raw = true, packet[ip:]
	switch next := packet[6]; {
	case next == unix.IPPROTO_ICMPV6 && packet[ip] == 133:
		m.kind = "RS"
	case next == unix.IPPROTO_ICMPV6 && packet[ip] == 134:
		m.kind = "RA"
	case next == unix.IPPROTO_UDP:
		if port := binary.BigEndian.Uint16(packet[ip+2:]); port != 546 && port != 547 {
			return false
		}
		m.raw = packet[ip+udp:]
		d, err := dhcpv6.MessageFromBytes(m.raw)
		if err != nil {
			return false
		}
		m.kind = d.MessageType.String()
		m.renewal = d.MessageType == dhcpv6.MessageTypeRenew || d.MessageType == dhcpv6.MessageTypeRebind
	}
	return m.kind != ""
}

// types names what was seen, in order.
func (w *witness) types() (names []string) {
	for _, m := range w.seen {
		names = append(names, m.kind)
	}
	return names
}

// granted tells whether a message is the one that gives a client what it can
// take of a lease: an address or, if it asks for none, a router.
func (c client) granted(l lease) func(message) bool {
	kind := "ACK"
	switch {
	case c.name == kernel:
		kind = "RA"
	case l.six:
		kind = "REPLY"
	}
	return func(m message) bool { return !m.client && m.kind == kind }
}

// renewal tells whether a message is that of a client that has its address.
func (l lease) renewal(m message) bool { return m.client && m.renewal && m.six == l.six }
