package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// path is a pod with a datapath, with what sends and receives at its ends.
type path struct {
	*pod
	name string
	link string // the node's end of the pod's
	node *podtest.NS

	nodeMAC net.HardwareAddr

	tap, udp int    // descriptors: the guest's end of the tap, the node's socket
	datagram []byte // what the guest sends, behind a virtio header
	buffer   [1 << 16]byte
}

// vnetHeader is the length of struct virtio_net_hdr (linux/virtio_net.h), which a tap
// with IFF_VNET_HDR has before each frame.
const vnetHeader = 10

// ipProtocolAt is where an IPv4 packet's protocol is in what is read from the tap.
const ipProtocolAt = vnetHeader + podtest.EthernetLen + 9

// The frames are as small as Ethernet's smallest, without its checksum's four bytes
// and with the sixty-four that people count in.
const (
	frameLen  = 64
	framePort = 9000
)

// newPath makes the i-th pod of a site one with the datapath.
func newPath(ctx context.Context, s *site, i int, d datapath) (_ *path, err error) {
	p := &path{pod: s.take(1)[0], name: d.name, link: fmt.Sprintf("veth%d", i), node: s.node, tap: -1, udp: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := s.node.Batch(ctx, "link set "+p.link+" nomaster",
		fmt.Sprintf("route add %s/32 dev %s src %s", p.ip.Addr(), p.link, p.gateway),
		fmt.Sprintf("neigh replace %s lladdr %s dev %s", p.ip.Addr(), p.mac, p.link)); err != nil {
		return nil, err
	}
	if err := d.make(ctx, p.pod); err != nil {
		return nil, err
	}
	if err := p.ns.Do(func() (err error) {
		p.tap, err = openTap(podTap, unix.IFF_VNET_HDR)
		return err
	}); err != nil {
		return nil, err
	}
	// What a virtio device offers a guest.
	if err := unix.IoctlSetInt(p.tap, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		return nil, os.NewSyscallError("ioctl TUNSETOFFLOAD", err)
	}
	if err := p.node.Do(p.openNode); err != nil {
		return nil, err
	}
	return p, errors.Join(unix.SetNonblock(p.tap, true), unix.SetNonblock(p.udp, true), p.waitForwarding(ctx))
}

// openNode opens the node's socket, and makes what is sent to it.
func (p *path) openNode() (err error) {
	link, err := net.InterfaceByName(p.link)
	if err != nil {
		return err
	}
	p.nodeMAC = link.HardwareAddr
	if p.udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(p.udp, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20); err != nil {
		return os.NewSyscallError("setsockopt SO_RCVBUF", err)
	}
	// Each has a port of its own, as the pods have one gateway.
	if err := unix.Bind(p.udp, &unix.SockaddrInet4{Addr: p.gateway.As4()}); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Connect(p.udp, &unix.SockaddrInet4{Addr: p.ip.Addr().As4(), Port: framePort}); err != nil {
		return os.NewSyscallError("connect", err)
	}
	name, err := unix.Getsockname(p.udp)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	// The guest leaves the checksum to the device.
	p.datagram = podtest.UDPFrame(p.mac, p.nodeMAC, netip.AddrPortFrom(p.ip.Addr(), framePort),
		netip.AddrPortFrom(p.gateway, uint16(name.(*unix.SockaddrInet4).Port)), make([]byte, frameLen-messageAt))
	header := make([]byte, vnetHeader)
	header[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(header[6:], messageAt-podtest.UDPLen)
	binary.NativeEndian.PutUint16(header[8:], 6)
	p.datagram = slices.Concat(header, p.datagram)
	return nil
}

func (p *path) close() error {
	var errs []error
	for _, fd := range []*int{&p.tap, &p.udp} {
		if *fd >= 0 {
			errs = append(errs, unix.Close(*fd))
			*fd = -1
		}
	}
	return errors.Join(errs...)
}

// waitForwarding sends until something arrives, both ways.
func (p *path) waitForwarding(ctx context.Context) error {
	for _, send := range []func() (int, error){p.sendToGuest, p.sendFromGuest} {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			if got, err := send(); err != nil || got > 0 {
				if err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// burst is how many frames are sent before they are received.
const burst = 64

// sendToGuest sends a burst and counts what arrives of it.
func (p *path) sendToGuest() (int, error) {
	for range burst {
		if _, err := unix.Write(p.udp, p.datagram[vnetHeader+messageAt:]); err != nil {
			return 0, os.NewSyscallError("send", err)
		}
	}
	return p.receive(p.tap, burst, isDatagram)
}

// sendFromGuest does so the other way.
func (p *path) sendFromGuest() (int, error) {
	for range burst {
		if _, err := unix.Write(p.tap, p.datagram); err != nil {
			return 0, os.NewSyscallError("write tap", err)
		}
	}
	return p.receive(p.udp, burst, anything)
}

func anything([]byte) bool { return true }

// isDatagram tells whether it is a datagram of ours that was read from the tap.
func isDatagram(frame []byte) bool {
	return len(frame) == vnetHeader+frameLen && frame[ipProtocolAt] == unix.IPPROTO_UDP
}

// receive counts what it receives that is wanted, until that is as much as it expects or
// nothing has come for some time.
func (p *path) receive(fd, expected int, wanted func([]byte) bool) (got int, err error) {
	for got < expected {
		n, err := p.read(fd)
		switch {
		case errors.Is(err, errTimeout):
			return got, nil
		case err != nil:
			return got, err
		case wanted(p.buffer[:n]):
			got++
		}
	}
	return got, nil
}

// read reads what is there, or comes soon. What was sent is there in most cases: it is
// the sender that delivers it.
func (p *path) read(fd int) (int, error) {
	for {
		n, err := unix.Read(fd, p.buffer[:])
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
			continue
		case !errors.Is(err, unix.EAGAIN):
			return 0, os.NewSyscallError("read", err)
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100); n == 0 && err == nil {
			return 0, errTimeout
		}
	}
}

// rate is how many frames arrive in a second, on one CPU: by the p50 of the bursts that
// arrive whole, as what else runs interrupts few of them.
func (b bench) rate(send func() (int, error)) (float64, error) {
	took, err := b.repeat(func() (bool, error) {
		got, err := send()
		return got == burst, err
	})
	return burst / quantile(took, 0.5).Seconds(), err
}

// repeat does something over and over for a turn, on one CPU, and returns how long each
// time took that counts.
func (b bench) repeat(do func() (counts bool, err error)) (took []time.Duration, err error) {
	unpin, err := pin(serverCPU())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unpin()) }()
	for began := time.Now(); time.Since(began) < b.turn/turnsPerTurn || len(took) == 0; {
		start := time.Now()
		counts, err := do()
		if err != nil {
			return nil, err
		}
		if counts {
			took = append(took, time.Since(start))
		}
	}
	return took, nil
}

// turnsPerTurn is how much shorter a datapath's turn is than a server's.
const turnsPerTurn = 4

func framesToGuest(b bench, p *path) (float64, error) {
	return b.rate(p.sendToGuest)
}

func framesFromGuest(b bench, p *path) (float64, error) {
	return b.rate(p.sendFromGuest)
}

// roundTrip is the p50 of datagrams from the guest that the node answers.
func roundTrip(b bench, p *path) (float64, error) {
	took, err := b.repeat(func() (bool, error) {
		if _, err := unix.Write(p.tap, p.datagram); err != nil {
			return false, os.NewSyscallError("write tap", err)
		}
		if got, err := p.receive(p.udp, 1, anything); got == 0 || err != nil {
			return false, err
		}
		if _, err := unix.Write(p.udp, p.datagram[vnetHeader+messageAt:]); err != nil {
			return false, os.NewSyscallError("send", err)
		}
		got, err := p.receive(p.tap, 1, isDatagram)
		return got == 1, err
	})
	return micros(quantile(took, 0.5)), err
}
