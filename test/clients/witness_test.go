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
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// message is a DHCP message that was seen on the tap.
type message struct {
	*dhcpv4.DHCPv4
	raw       []byte
	client    bool // sent by the guest
	broadcast bool // to everybody, by its Ethernet address
}

// witness sees all DHCP on a tap, both ways, in the kernel's order.
type witness struct {
	file *os.File
	mac  net.HardwareAddr
	seen []message
}

// newWitness listens on the tap of a pod until the test's end.
func newWitness(t *testing.T, pod *podtest.Pod) *witness {
	t.Helper()
	w := &witness{mac: pod.MAC}
	if err := pod.Pod.Do(func() error {
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

// parse finds the DHCP message in a frame that has no IP options.
func (w *witness) parse(frame []byte) (message, bool) {
	const eth, ip, udp = 14, 20, 8
	if len(frame) < eth+ip+udp || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[eth] != 0x45 || frame[eth+9] != unix.IPPROTO_UDP {
		return message{}, false
	}
	if port := binary.BigEndian.Uint16(frame[eth+ip+2:]); port != 67 && port != 68 {
		return message{}, false
	}
	end := eth + ip + int(binary.BigEndian.Uint16(frame[eth+ip+4:]))
	if end > len(frame) {
		return message{}, false
	}
	raw := frame[eth+ip+udp : end]
	m, err := dhcpv4.FromBytes(raw)
	return message{
		DHCPv4: m, raw: raw,
		client:    bytes.Equal(frame[6:12], w.mac),
		broadcast: frame[0]&1 != 0,
	}, err == nil
}

// types names what was seen, in order.
func (w *witness) types() (names []string) {
	for _, m := range w.seen {
		names = append(names, m.MessageType().String())
	}
	return names
}

// isAck is an answer that grants the address.
func isAck(m message) bool { return !m.client && m.MessageType() == dhcpv4.MessageTypeAck }

// isRenewal is a DHCPREQUEST of a client that has its address (RFC 2131 §4.3.2).
func isRenewal(m message) bool {
	return m.client && m.MessageType() == dhcpv4.MessageTypeRequest && !m.ClientIPAddr.IsUnspecified()
}
