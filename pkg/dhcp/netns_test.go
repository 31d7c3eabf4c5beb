package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// patience bounds all waiting for what must happen.
const patience = 30 * time.Second

// newNetns puts the test's goroutine, and no other, into a network namespace of
// its own. It ends with the test's thread.
func newNetns(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread must not go back to the pool
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		missing(t, "make a network namespace: %v", err)
	}
	ip(t, "link set lo up")
}

// missing ends a test for want of a capability: it fails unless the caller
// allows that it is skipped.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("ALLOW_SKIP") == "1" {
		t.Skipf(format, args...)
	}
	t.Fatalf(format, args...)
}

// ip runs ip(8) in the namespace of the test.
func ip(t testing.TB, args string) string {
	t.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// newTap makes a persistent tap as a pod has it, down.
func newTap(t testing.TB) string {
	t.Helper()
	newNetns(t)
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing(t, "make a tap: %v", err)
	}
	ip(t, "tuntap add dev tap0 mode tap vnet_hdr")
	return "tap0"
}

// guestEnd is the guest's side of a tap, where QEMU is.
type guestEnd struct {
	t    testing.TB
	file *os.File
	buf  [65536]byte
}

// virtioHeader is the length of struct virtio_net_hdr.
const virtioHeader = 10

// sit opens the tap as QEMU does.
func openGuest(t testing.TB, name string) *guestEnd {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		missing(t, "open tap: %v", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	up := carrier(t, name)
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("attach to tap: %v", err)
	}
	s := &guestEnd{t: t, file: os.NewFile(uintptr(fd), "tap")}
	t.Cleanup(s.leave)
	up()
	return s
}

// carrier returns what waits for the tap to send. When it is opened its carrier
// comes up, but its queue takes frames only after the kernel's link watch has
// run: what is sent before is lost without a word.
func carrier(t testing.TB, name string) (wait func()) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		t.Fatal(err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		buf := make([]byte, 1<<16)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				t.Fatalf("wait for %s to come up: %v", name, err)
			}
			messages, err := syscall.ParseNetlinkMessage(buf[:n])
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool { return isUp(t, m, name) }) {
				return
			}
		}
	}
}

// isUp tells whether a message says that the interface can send.
func isUp(t testing.TB, m syscall.NetlinkMessage, name string) bool {
	t.Helper()
	if m.Header.Type != unix.RTM_NEWLINK {
		return false
	}
	attrs, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		t.Fatal(err)
	}
	const operUp = 6 // IF_OPER_UP of linux/if.h
	named, up := false, false
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			named = string(a.Value) == name+"\x00"
		case unix.IFLA_OPERSTATE:
			up = a.Value[0] == operUp
		}
	}
	return named && up
}

func (s *guestEnd) leave() { _ = s.file.Close() }

func (s *guestEnd) send(frame []byte) {
	s.t.Helper()
	if err := s.trySend(frame, false); err != nil {
		s.t.Fatalf("send from the guest: %v", err)
	}
}

// trySend sends a frame. With pending, the checksum is left to the other side,
// as guests do with a virtio NIC.
func (s *guestEnd) trySend(frame []byte, pending bool) error {
	b := append(make([]byte, virtioHeader, virtioHeader+len(frame)), frame...)
	if pending {
		b[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.NativeEndian.PutUint16(b[6:], packet.UDP4Len-8)
		binary.NativeEndian.PutUint16(b[8:], 6)
	}
	_, err := s.file.Write(b)
	return err
}

// receive returns the next DHCP reply within a time, or nil. The kernel's own
// frames, of IPv6, are passed over.
func (s *guestEnd) receive(within time.Duration) (*dhcpv4.DHCPv4, packet.UDP) {
	s.t.Helper()
	if err := s.file.SetReadDeadline(time.Now().Add(within)); err != nil {
		s.t.Fatal(err)
	}
	for {
		n, err := s.file.Read(s.buf[:])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, packet.UDP{}
		}
		if err != nil {
			s.t.Fatalf("receive at the guest: %v", err)
		}
		frame := s.buf[virtioHeader:n]
		if m, d, err := readReply(frame); err == nil {
			return m, d
		}
	}
}

// ask sends a message and returns the answer, which must come.
func (s *guestEnd) ask(m *dhcpv4.DHCPv4) (*dhcpv4.DHCPv4, packet.UDP) {
	s.t.Helper()
	s.send(guestFrame(m))
	got, d := s.receive(patience)
	if got == nil {
		s.t.Fatalf("no answer to %v", m.MessageType())
	}
	if got.TransactionID != m.TransactionID {
		s.t.Fatalf("answer %v is not for %v", got, m)
	}
	return got, d
}

// dora gets a lease, and returns the ACK.
func (s *guestEnd) dora() *dhcpv4.DHCPv4 {
	s.t.Helper()
	offered, _ := s.ask(discover())
	got, _ := s.ask(request(dhcpv4.OptServerIdentifier(offered.ServerIdentifier()), dhcpv4.OptRequestedIPAddress(offered.YourIPAddr)))
	if messageType(got) != ack {
		s.t.Fatalf("got %v, want an ACK", got)
	}
	return got
}

// guestFrame is a message as the guest sends it before it has an address.
func guestFrame(m *dhcpv4.DHCPv4) []byte {
	return frameFrom(m, guestMAC, "0.0.0.0:68", packet.Broadcast, "255.255.255.255:67")
}

func frameFrom(m *dhcpv4.DHCPv4, from mac.Addr, src string, to mac.Addr, dst string) []byte {
	b := append(make([]byte, packet.UDP4Len), m.ToBytes()...)
	packet.SealUDP4(b, packet.UDP{SrcMAC: from, DstMAC: to, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)})
	return b
}

// serveOn starts a server for the test's time. Serve runs in another thread, and
// so outside the test's namespace.
func serveOn(t testing.TB, tap string, l Lease, change ...func(*leaseServer)) *leaseServer {
	t.Helper()
	s := newServer(t, tap, l)
	for _, f := range change {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, lease.ErrGone) {
				t.Errorf("serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end with its context")
		}
	})
	return s
}

// newServer is a server that does not serve yet.
func newServer(t testing.TB, tap string, l Lease) *leaseServer {
	t.Helper()
	s, err := NewServer(tap, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Errorf("close: %v", err)
		}
	})
	return s.(*leaseServer)
}

// await waits until the status is as wanted.
func await(t testing.TB, s *leaseServer, what string, until func(lease.Status) bool) lease.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := s.Wait(ctx, until)
	if err != nil {
		t.Fatalf("%s: %v\n%+v", what, err, status)
	}
	return status
}

func is(state lease.State) func(lease.Status) bool {
	return func(s lease.Status) bool { return s.State == state }
}
