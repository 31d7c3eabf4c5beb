package prepare_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// attack is a pod whose guest, and a neighbour of it, ask for checksums where there
// are none.
type attack struct {
	*podtest.Pod
	tap       *podtest.Tap
	victim    *podtest.NS // on the node's switch, by a port that computes no checksums
	victimMAC net.HardwareAddr
	dir       string // of the state
	plan      prepare.Plan
}

const (
	victimIP     = "10.22.0.99"
	victimIPv6   = "fd00:10:22::99"
	wrongGateway = "2001:db8:666::"
)

func newAttack(t *testing.T) *attack {
	t.Helper()
	a := &attack{Pod: podtest.NewPod(t, podtest.BridgeDual), victim: podtest.New(t), dir: t.TempDir()}
	a.Node.IP(t, "link add phys type veth peer name ext netns "+a.victim.Path(), "link set phys up master cni0")
	a.victim.IP(t, "link set ext up", "link set lo up", "addr add "+victimIP+"/24 dev ext", "addr add "+victimIPv6+"/64 dev ext nodad")
	if err := a.victim.Sysctl("net/ipv6/conf/ext/accept_ra", "2"); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"iptables", "ip6tables", "arptables"} { // which know of spoofing in no way
		if err := a.Node.Sysctl(podtest.SwitchFilter+family, "0"); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := a.Node.Do(func() error { return noChecksums("phys") }); err != nil {
		t.Fatal(err)
	}
	var err error
	if a.victimMAC, err = linkAddress(a.victim, "ext"); err != nil {
		t.Fatal(err)
	}
	if err := a.Do(func() (err error) {
		a.plan, err = prepare.ApplyOne(t.Context(), a.dir, prepare.Options{}, a.Interface)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if a.tap, err = podtest.OpenTap(a.NS, a.plan.NIC().Tap, 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.tap.Close() })
	if err := a.Do(func() error { return a.plan.WaitForwarding(t.Context()) }); err != nil {
		t.Fatal(err)
	}
	if err := podtest.WaitSettled(t.Context(), a.victim); err != nil {
		t.Fatal(err)
	}
	return a
}

// noChecksums has the device compute no checksums (ETHTOOL_STXCSUM,
// linux/ethtool.h).
func noChecksums(name string) error {
	value := struct{ command, data uint32 }{0x17, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], name)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return os.NewSyscallError("ioctl ETHTOOL_STXCSUM", errno)
	}
	return nil
}

// rewriting asks for a checksum at a place of the frame, and makes it what is
// wanted there by a word that nobody reads.
func rewriting(frame []byte, at int, want uint16, free int) (podtest.Request, []byte) {
	frame = slices.Clone(frame)
	start := 20 // no sooner (virtio_net_hdr_to_skb, linux/virtio_net.h)
	sum := uint32(0)
	for i := start; i < len(frame); i += 2 {
		if i != free {
			sum += uint32(binary.BigEndian.Uint16(frame[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	rest := uint32(^want) + 0xffff - sum
	binary.BigEndian.PutUint16(frame[free:], uint16(rest>>16+rest&0xffff))
	return podtest.Request{Checksum: true, Start: uint16(start), Offset: uint16(at - start)}, frame
}

// without returns a frame whose checksum is right once the word at a place is as
// wanted, and which has another word there.
func without(frame []byte, at int, word uint16) (_ []byte, want uint16) {
	frame = slices.Clone(frame)
	want = binary.BigEndian.Uint16(frame[at:])
	binary.BigEndian.PutUint16(frame[at:], word)
	return frame, want
}

// Where things are in a frame.
const (
	ipSourceEnd  = 14 + 14
	ip6SourceEnd = 14 + 22
	udpTo        = 14 + 20 + 2
	icmp6Type    = 14 + 40 + 8 // behind withOption
	optionValue  = 14 + 40 + 4
	arpSourceEnd = 14 + 16
)

// withOption puts an option that nobody knows, and everybody skips (RFC 8200 section
// 4.2, RFC 4727), in front of what is in an IPv6 packet. It is in no checksum.
func withOption(frame []byte) []byte {
	frame = podtest.BehindHeaders(frame, unix.IPPROTO_DSTOPTS)
	frame[14+40+2] = 0x1e
	return frame
}

func arpRequest(mac net.HardwareAddr, from, to netip.Addr) []byte {
	head := slices.Concat(bytes.Repeat([]byte{0xff}, 6), mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1})
	return slices.Concat(head, mac, from.AsSlice(), make([]byte, 6), to.AsSlice())
}

// setFilter takes the filter from the tap, or gives it back as prepare does.
func (a *attack) setFilter(t *testing.T, on bool) {
	t.Helper()
	if !on {
		a.Run(t, "tc", "qdisc", "del", "dev", "tap-eth0", "clsact")
	}
	a.In(t, func() error {
		if on {
			if err := prepare.ApplyAll(t.Context(), a.dir, prepare.Options{}, a.Interface); err != nil {
				return err
			}
		}
		is, why, err := a.plan.ChecksumFilter()
		if err == nil && is != on {
			t.Errorf("the filter is on: %v (%s), want %v", is, why, on)
		}
		return err
	})
}

// arrives reports whether a frame comes out of the tap within a while.
func (a *attack) arrives(t *testing.T, wanted func([]byte) bool) bool {
	t.Helper()
	if err := a.tap.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for frame := make([]byte, 2048); ; {
		n, err := a.tap.Read(frame)
		if os.IsTimeout(err) {
			return false
		}
		if err != nil {
			t.Fatal(err)
		}
		if wanted(frame[:n]) {
			return true
		}
	}
}

// listen opens a UDP socket of the victim.
func (a *attack) listen(t *testing.T, address string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	if err := a.victim.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(address)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// gets says from whom the socket has got a datagram; nobody after a while.
func gets(t *testing.T, conn *net.UDPConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 2048))
	if os.IsTimeout(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return from.Addr().Unmap().String()
}

// A guest that has the kernel write a checksum over a frame, once the guard has
// seen it, deceives nobody; nor does who sends to the guest. The victims say so
// themselves, and that they are deceived without the filter.
func TestChecksumRequests(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	own, own6, victim, victim6 := a.IPv4.Addr(), a.IPv6.Addr(), netip.MustParseAddr(victimIP), netip.MustParseAddr(victimIPv6)
	linkLocal := mac.Of(a.MAC).LinkLocal()
	padding := make([]byte, 32)
	ask := func(frame []byte, at int, want uint16, free int) error {
		r, f := rewriting(frame, at, want, free)
		return a.tap.Ask(r, f)
	}
	stolen, stolen6 := netip.MustParseAddr("10.22.0.10"), netip.MustParseAddr("fd00:10:22::10")
	lowEnd := func(ip netip.Addr) uint16 { b := ip.AsSlice(); return binary.BigEndian.Uint16(b[len(b)-2:]) }
	for _, c := range []struct {
		name string
		try  func(t *testing.T, seq uint16) (deceived bool, err error)
	}{
		{"ARP", func(t *testing.T, _ uint16) (bool, error) {
			request := append(arpRequest(a.MAC, own, victim), padding...)
			err := ask(request, arpSourceEnd, lowEnd(stolen), len(request)-2)
			out := a.victim.Run(t, "ip", "neigh", "show", stolen.String())
			return strings.Contains(out, a.MAC.String()), err
		}},
		{"IPv4", func(t *testing.T, seq uint16) (bool, error) {
			conn := a.listen(t, fmt.Sprintf("%s:%d", victim, seq))
			frame, want := without(podtest.UDPFrame(a.MAC, a.victimMAC, netip.AddrPortFrom(stolen, 9), netip.AddrPortFrom(victim, seq), padding), ipSourceEnd, lowEnd(own))
			binary.BigEndian.PutUint16(frame[40:], 0) // no UDP checksum
			err := ask(frame, ipSourceEnd, want, len(frame)-2)
			return gets(t, conn) == stolen.String(), err
		}},
		{"IPv6", func(t *testing.T, seq uint16) (bool, error) {
			conn := a.listen(t, fmt.Sprintf("[%s]:%d", victim6, seq))
			frame := podtest.UDPFrame(a.MAC, a.victimMAC, netip.AddrPortFrom(stolen6, 9), netip.AddrPortFrom(victim6, seq), padding)
			frame, want := without(withOption(frame), ip6SourceEnd, lowEnd(own6))
			err := ask(frame, ip6SourceEnd, want, optionValue)
			return gets(t, conn) == stolen6.String(), err
		}},
		{"DHCP offer", func(t *testing.T, _ uint16) (bool, error) {
			conn := a.listen(t, victimIP+":68")
			defer conn.Close()
			frame, want := without(podtest.UDPFrame(a.MAC, a.victimMAC, netip.AddrPortFrom(own, 9), netip.AddrPortFrom(victim, 68), padding), udpTo, 9999)
			binary.BigEndian.PutUint16(frame[40:], 0)
			err := ask(frame, udpTo, want, len(frame)-2)
			return gets(t, conn) == own.String(), err
		}},
		{"router advertisement", func(t *testing.T, _ uint16) (bool, error) {
			prefix := append([]byte{3, 4, 64, 0xc0, 0, 1, 0x51, 0x80, 0, 0, 0x38, 0x40, 0, 0, 0, 0}, netip.MustParseAddr(wrongGateway).AsSlice()...)
			body := append([]byte{64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0}, prefix...)
			frame := podtest.ICMPv6Frame(a.MAC, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, linkLocal, netip.MustParseAddr("ff02::1"), 134, 255, body)
			frame, want := without(withOption(frame), icmp6Type, 200<<8)
			err := ask(frame, icmp6Type, want, optionValue)
			time.Sleep(100 * time.Millisecond) // there is no event for what is not taken
			return strings.Contains(a.victim.Run(t, "ip", "-6", "route"), wrongGateway), err
		}},
		{"offer to the guest", func(t *testing.T, _ uint16) (bool, error) {
			frame, want := without(podtest.UDPFrame(a.victimMAC, a.MAC, netip.AddrPortFrom(victim, 9), netip.AddrPortFrom(own, 68), padding), udpTo, 9999)
			binary.BigEndian.PutUint16(frame[40:], 0)
			r, f := rewriting(frame, udpTo, want, len(frame)-2)
			if err := podtest.SendAsking(a.victim, "ext", r, f); err != nil {
				return false, err
			}
			return a.arrives(t, func(frame []byte) bool {
				return len(frame) > 38 && frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(frame[udpTo:]) == 68
			}), nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.setFilter(t, true)
			if deceived, err := c.try(t, 4001); deceived || err != nil {
				t.Errorf("the victim is deceived: %v; error %v", deceived, err)
			}
			a.setFilter(t, false)
			if deceived, err := c.try(t, 4002); !deceived || err != nil {
				t.Errorf("without the filter the victim is not deceived, so this proves nothing; error %v", err)
			}
		})
	}
}

// A guest that asks for segments of what is in a tunnel says where that begins. Where
// it says that it is UDP's own header, the kernel writes a segment's length on the
// port that the guard has seen.
func TestTunnelRequests(t *testing.T) {
	t.Parallel()
	a := newAttack(t)
	err := a.tap.AcceptTunnels()
	if errors.Is(err, unix.EINVAL) {
		t.Skip("the kernel knows no such requests, as none before Linux 6.17")
	}
	if err != nil {
		t.Fatal(err)
	}
	const options, segment, ordinary = 40, 28, 9999
	own, victim := a.IPv4.Addr(), netip.MustParseAddr(victimIP)
	const transport = 14 + 20 + options
	frame := func(inner []byte) []byte {
		outer := podtest.UDPFrame(a.MAC, a.victimMAC, netip.AddrPortFrom(own, 0x4500), netip.AddrPortFrom(victim, ordinary), inner)
		binary.BigEndian.PutUint16(outer[40:], 0) // no UDP checksum
		frame := slices.Concat(outer[:34], bytes.Repeat([]byte{1}, options), outer[34:])
		frame[14] = 0x4f // the header's version and length
		binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
		frame[24], frame[25] = 0, 0
		var sum uint32
		for i := 14; i < transport; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(frame[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(frame[24:], ^uint16(sum))
		return frame
	}
	tcp := slices.Concat([]byte{0, 9, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0}, make([]byte, 3*segment))
	ask := func(at uint16, frame []byte) error {
		const gsoTCPv4, gsoTunnelIPv4 = 1, 0x20 // VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_UDP_TUNNEL_IPV4
		return a.tap.AskTunnel(podtest.Request{
			Checksum: true, GSO: gsoTCPv4 | gsoTunnelIPv4, Start: at + 20, Offset: 16, HeaderLen: at + 40, Size: segment,
			Outer: 34, Inner: at,
		}, frame)
	}
	// Both headers begin at the same place: UDP's source port is 0x4500, and its
	// destination the inner packet's length.
	onPorts := frame(slices.Concat([]byte{2, 6, 0, 0}, own.AsSlice(), victim.AsSlice(), tcp))
	client := a.listen(t, fmt.Sprintf("%s:%d", victim, 20+20+segment)) // which is DHCP's 68
	if err := ask(transport, onPorts); err != nil {
		t.Fatal(err)
	}
	if from := gets(t, client); from != "" {
		t.Errorf("the victim's DHCP client hears %s", from)
	}
	// In the payload of UDP it is an honest tunnel.
	receiver := a.listen(t, fmt.Sprintf("%s:%d", victim, ordinary))
	inner := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(tcp)), 0, 0, 0, 0, 64, 6, 0, 0}, own.AsSlice(), victim.AsSlice(), tcp)
	if err := ask(transport+8, frame(inner)); err != nil {
		t.Fatal(err)
	}
	if from := gets(t, receiver); from != own.String() {
		t.Errorf("what is in a tunnel does not arrive; from %q", from)
	}
	a.setFilter(t, false)
	if err := ask(transport, onPorts); err != nil {
		t.Fatal(err)
	}
	if from := gets(t, client); from != own.String() {
		t.Error("without the filter the victim's DHCP client hears nothing, so this proves nothing")
	}
}

// An ingress qdisc that somebody else made is not taken for a place of the filter: one
// at egress would judge what comes in. It stays, and the warning says what to do.
func TestChecksumFilterBesideIngress(t *testing.T) {
	t.Parallel()
	pod, dir := podtest.NewPod(t, podtest.BridgeDual), t.TempDir()
	var log bytes.Buffer
	var plan prepare.Plan
	pod.In(t, func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), dir, prepare.Options{}, pod.Interface)
		return err
	})
	apply := func() {
		t.Helper()
		pod.In(t, func() error {
			store, err := prepare.OpenStore(t.Context(), dir)
			if err != nil {
				return err
			}
			defer store.Close()
			_, _, err = prepare.Apply(t.Context(), slog.New(slog.NewTextHandler(&log, nil)), store, plan)
			return err
		})
	}
	isOn := func() (on bool) {
		t.Helper()
		pod.In(t, func() (err error) {
			on, _, err = plan.ChecksumFilter()
			return err
		})
		return on
	}
	tap := plan.NIC().Tap
	pod.Run(t, "tc", "qdisc", "del", "dev", tap, "clsact")
	pod.Run(t, "tc", "qdisc", "add", "dev", tap, "ingress")
	if apply(); isOn() {
		t.Error("it says that the filter is on")
	}
	if filters := pod.Run(t, "tc", "filter", "show", "dev", tap, "ingress"); strings.Contains(filters, "bpf") {
		t.Errorf("it is at the other's qdisc: %s", filters)
	}
	if want := "tc qdisc del dev " + tap + " ingress"; !strings.Contains(log.String(), want) {
		t.Errorf("no %q in %s", want, &log)
	}
	pod.Run(t, "tc", "qdisc", "del", "dev", tap, "ingress")
	if apply(); !isOn() {
		t.Error("it is not on once the other's qdisc is gone")
	}
}

// The filter drops what it does not understand, and lets pass what a guest's kernel
// asks for: segments of TCP and UDP, in tunnels too.
func TestChecksumFilter(t *testing.T) {
	t.Parallel()
	pod := podtest.NewPod(t, podtest.CalicoDual)
	var plan prepare.Plan
	pod.In(t, func() (err error) {
		plan, err = prepare.ApplyOne(t.Context(), t.TempDir(), prepare.Options{}, pod.Interface)
		return err
	})
	tap, err := podtest.OpenTap(pod.NS, plan.NIC().Tap, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	own, own6, outside, outside6 := pod.IPv4.Addr(), pod.IPv6.Addr(), podtest.OutsideIP, podtest.OutsideIPv6
	gateway := net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	payload := make([]byte, 3000)
	udp := podtest.UDPFrame(pod.MAC, gateway, netip.AddrPortFrom(own, 9), netip.AddrPortFrom(outside, 9), payload[:100])
	udp6 := podtest.UDPFrame(pod.MAC, gateway, netip.AddrPortFrom(own6, 9), netip.AddrPortFrom(outside6, 9), payload[:100])
	ipv4 := func(protocol byte, size int, change func(frame []byte)) []byte {
		frame := podtest.UDPFrame(pod.MAC, gateway, netip.AddrPortFrom(own, 9), netip.AddrPortFrom(outside, 9), payload[:size])
		frame[23] = protocol
		if change != nil {
			change(frame)
		}
		return frame
	}
	ipv6 := func(protocol byte, size int) []byte {
		return podtest.IPv6Frame(pod.MAC, gateway, own6, outside6, protocol, 64, payload[:size])
	}
	options := func(frame []byte) { frame[14] = 0x4a } // 40 bytes of header
	tagged := func(frame []byte, types ...byte) []byte {
		for _, t := range types {
			frame = slices.Concat(frame[:12], []byte{0x81, t, 0, 5}, frame[12:])
		}
		return frame
	}
	asks := func(start, offset uint16) podtest.Request {
		return podtest.Request{Checksum: true, Start: start, Offset: offset}
	}
	segments := func(start, offset uint16, gso uint8, header uint16) podtest.Request {
		return podtest.Request{Checksum: true, Start: start, Offset: offset, GSO: gso, HeaderLen: header, Size: 1000}
	}
	tcpHeader := func(at int) func([]byte) { return func(frame []byte) { frame[at+12] = 5 << 4 } } // its length, in words
	tcp6 := ipv6(unix.IPPROTO_TCP, 3000)
	tcpHeader(54)(tcp6)
	const gsoTCPv4, gsoTCPv6, gsoUDPL4 = 1, 4, 5 // VIRTIO_NET_HDR_GSO_TCPV4, …
	const hop, destination, routing, fragment = unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT
	for _, c := range []struct {
		name    string
		request podtest.Request
		frame   []byte
		passes  bool
	}{
		{"no request", podtest.Request{}, udp, true},
		{"UDP", asks(34, 6), udp, true},
		{"UDP at its ports", asks(34, 2), udp, false},
		{"UDP from another place", asks(30, 10), udp, false},
		{"UDP in IPv6", asks(54, 6), udp6, true},
		{"UDP in IPv6 at its source", asks(20, 16), udp6, false},
		{"TCP", asks(34, 16), ipv4(unix.IPPROTO_TCP, 100, nil), true},
		{"TCP's place in UDP's payload", asks(34, 16), udp, false},
		{"UDP's place in TCP", asks(34, 6), ipv4(unix.IPPROTO_TCP, 100, nil), false},
		{"TCP's payload", asks(54, 6), ipv4(unix.IPPROTO_TCP, 100, nil), false},
		{"SCTP", asks(34, 8), ipv4(unix.IPPROTO_SCTP, 100, nil), true},
		{"TCP in IPv6", asks(54, 16), ipv6(unix.IPPROTO_TCP, 100), true},
		{"TCP behind options", asks(54, 16), ipv4(unix.IPPROTO_TCP, 100, options), true},
		{"TCP within options", asks(34, 16), ipv4(unix.IPPROTO_TCP, 100, options), false},
		{"too short a header", asks(30, 16), ipv4(unix.IPPROTO_TCP, 100, func(f []byte) { f[14] = 0x44 }), false},
		{"another version", asks(34, 16), ipv4(unix.IPPROTO_TCP, 100, func(f []byte) { f[14] = 0x65 }), false},
		{"first fragment", asks(34, 6), ipv4(unix.IPPROTO_UDP, 100, func(f []byte) { f[20] = 0x20 }), true},
		{"later fragment", asks(34, 6), ipv4(unix.IPPROTO_UDP, 100, func(f []byte) { f[21] = 1 }), false},
		{"much later fragment", asks(34, 6), ipv4(unix.IPPROTO_UDP, 100, func(f []byte) { f[20] = 0x10 }), false},
		{"ICMP", asks(34, 2), ipv4(unix.IPPROTO_ICMP, 100, nil), false},
		{"ICMPv6", asks(54, 2), ipv6(unix.IPPROTO_ICMPV6, 100), false},
		{"ARP", asks(22, 8), append(arpRequest(pod.MAC, own, outside), payload[:20]...), false},
		{"another network protocol", asks(34, 6), ipv4(unix.IPPROTO_UDP, 100, func(f []byte) { f[12], f[13] = 0x88, 0x47 }), false},
		{"in a tunnel by UDP", asks(84, 16), ipv4(unix.IPPROTO_UDP, 200, nil), true},
		{"in a tunnel by GRE", asks(78, 16), ipv4(unix.IPPROTO_GRE, 200, nil), true},
		{"GRE's own header", asks(34, 2), ipv4(unix.IPPROTO_GRE, 200, nil), false},
		{"IPv4 in IPv4", asks(54, 16), ipv4(unix.IPPROTO_IPIP, 200, nil), true},
		{"IPv6 in IPv4", asks(74, 16), ipv4(unix.IPPROTO_IPV6, 200, nil), true},
		{"IPv6's address in IPv4", asks(50, 8), ipv4(unix.IPPROTO_IPV6, 200, nil), false},
		{"behind a hop-by-hop header", asks(62, 6), podtest.BehindHeaders(udp6, hop), true},
		{"within it", asks(54, 6), podtest.BehindHeaders(udp6, hop), false},
		{"behind six headers", asks(102, 6), podtest.BehindHeaders(udp6, hop, destination, routing, fragment, destination, destination), true},
		{"behind seven", asks(110, 6), podtest.BehindHeaders(udp6, hop, destination, routing, fragment, destination, destination, destination), false},
		{"behind an authentication header", asks(70, 6), podtest.BehindHeaders(udp6, unix.IPPROTO_AH), false},
		{"first fragment of IPv6", asks(62, 6), podtest.Fragment6(udp6, 0, 64, unix.IPPROTO_UDP), true},
		{"later fragment of IPv6", asks(62, 6), podtest.Fragment6(udp6, 8, 64, unix.IPPROTO_UDP), false},
		{"headers beyond the frame", asks(62, 6), podtest.BehindHeaders(udp6, hop)[:72], false},
		{"VLAN", asks(38, 6), tagged(udp, 0), true},
		{"VLAN within a VLAN", asks(42, 6), tagged(udp, 0, 0), false},
		{"segments of TCP", segments(34, 16, gsoTCPv4, 54), ipv4(unix.IPPROTO_TCP, 3000, tcpHeader(34)), true},
		{"segments of TCP in IPv6", segments(54, 16, gsoTCPv6, 74), tcp6, true},
		{"segments of UDP", segments(34, 6, gsoUDPL4, 42), ipv4(unix.IPPROTO_UDP, 3000, nil), true},
	} {
		if c.name == "headers beyond the frame" {
			c.frame[14+40+1] = 200
		}
		before := dropped(t, pod.NS)
		if err := tap.Ask(c.request, c.frame); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if passes := dropped(t, pod.NS) == before; passes != c.passes {
			t.Errorf("%s passes: %v, want %v", c.name, passes, c.passes)
		}
	}
}

// dropped is how many frames the filters at the tap have dropped.
func dropped(t *testing.T, ns *podtest.NS) int {
	t.Helper()
	var queues []struct {
		Kind  string
		Drops int
	}
	if err := json.Unmarshal([]byte(ns.Run(t, "tc", "-s", "-j", "qdisc", "show", "dev", "tap-eth0")), &queues); err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		if q.Kind == "clsact" {
			return q.Drops
		}
	}
	t.Fatal("the tap has no clsact")
	return 0
}
