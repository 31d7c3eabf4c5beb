package main

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// tcpStream is a connection (RFC 9293) from the node's stack to the guest's end of the
// tap, where this process acknowledges what arrives. So one thread does it all, as with
// other traffic, and nothing of a guest's stack is measured.
type tcpStream struct {
	path *path
	fd   int
	ack  []byte // what the guest sends, behind a virtio header
	next uint32 // the sequence number of what is to arrive next
}

// Where things are in what is read from the tap and written to it, and TCP's flags.
const (
	ipAt  = vnetHeader + podtest.EthernetLen
	tcpAt = ipAt + podtest.IPv4Len

	tcpLen  = 20
	synAck  = 0x12
	onlyAck = 0x10
)

// dial connects the node with the guest.
func (p *path) dial() (s *tcpStream, err error) {
	s = &tcpStream{path: p, fd: -1}
	if err := p.node.Do(s.open); err != nil {
		return nil, errors.Join(err, s.close())
	}
	var syn []byte
	for syn == nil || syn[tcpAt+13]&synAck != 0x02 {
		if syn, err = s.read(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	port := binary.BigEndian.Uint16(syn[tcpAt:])
	s.next = binary.BigEndian.Uint32(syn[tcpAt+4:]) + 1
	// A maximum segment size, a window of some megabytes (RFC 7323), no more options.
	err = s.write(p.segment(port, synAck, 0, []byte{2, 4, 1410 >> 8, 1410 & 0xff, 1, 3, 3, windowScale}))
	s.ack = p.segment(port, onlyAck, 1, nil)
	return s, err
}

const windowScale = 7

// open has the node's stack begin to connect.
func (s *tcpStream) open() (err error) {
	if s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err := errors.Join(unix.SetsockoptInt(s.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20),
		unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})); err != nil { // ends by a reset
		return os.NewSyscallError("setsockopt", err)
	}
	err = unix.Connect(s.fd, &unix.SockaddrInet4{Addr: s.path.ip.Addr().As4(), Port: framePort})
	if !errors.Is(err, unix.EINPROGRESS) {
		return os.NewSyscallError("connect", err)
	}
	return nil
}

func (s *tcpStream) close() error {
	if s.fd < 0 {
		return nil
	}
	return unix.Close(s.fd)
}

// segment is a frame of the guest's without data, whose checksum is left to the device.
func (p *path) segment(to uint16, flags byte, sequence uint32, options []byte) []byte {
	length := tcpLen + len(options)
	b := append(make([]byte, vnetHeader), podtest.UDPFrame(p.mac, p.nodeMAC, netip.AddrPortFrom(p.ip.Addr(), framePort),
		netip.AddrPortFrom(p.gateway, to), make([]byte, length-podtest.UDPLen))...)
	b[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(b[6:], tcpAt-vnetHeader)
	binary.NativeEndian.PutUint16(b[8:], 16)
	// The header's sum is the complement of that of its words, of which one is less now.
	sum := binary.BigEndian.Uint16(b[ipAt+10:])
	binary.BigEndian.PutUint16(b[ipAt+10:], fold(uint32(sum)+uint32(b[ipAt+9])-unix.IPPROTO_TCP))
	b[ipAt+9] = unix.IPPROTO_TCP

	pseudo := uint32(unix.IPPROTO_TCP + length)
	for at := ipAt + 12; at < tcpAt; at += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(b[at:]))
	}
	segment := b[tcpAt:]
	clear(segment[4:tcpLen])
	binary.BigEndian.PutUint32(segment[4:], sequence)
	segment[12], segment[13] = byte(length/4<<4), flags
	binary.BigEndian.PutUint16(segment[14:], 0xffff) // the window
	binary.BigEndian.PutUint16(segment[16:], fold(pseudo))
	copy(segment[tcpLen:], options)
	return b
}

// fold is a sum of 16-bit words as ones' complement.
func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// read reads the next of the stream's segments.
func (s *tcpStream) read() ([]byte, error) {
	for {
		n, err := s.path.read(s.path.tap)
		if err != nil {
			return nil, err
		}
		b := s.path.buffer[:n]
		if n >= tcpAt+tcpLen && b[ipProtocolAt] == unix.IPPROTO_TCP && binary.BigEndian.Uint16(b[tcpAt+2:]) == framePort {
			return b, nil
		}
	}
}

// write writes a frame that acknowledges all that has arrived.
func (s *tcpStream) write(frame []byte) error {
	binary.BigEndian.PutUint32(frame[tcpAt+8:], s.next)
	_, err := unix.Write(s.path.tap, frame)
	return os.NewSyscallError("write tap", err)
}

// transfer sends so often so many bytes, and has them arrive. Every so many segments are
// acknowledged, and the last one.
func (s *tcpStream) transfer(times int, data []byte, acknowledged int) error {
	end := s.next
	for range times {
		n, err := unix.Write(s.fd, data)
		if err != nil {
			return os.NewSyscallError("send", err)
		}
		end += uint32(n)
	}
	for count := 1; s.next != end; count++ {
		b, err := s.read()
		if err != nil {
			return err
		}
		length := int(binary.BigEndian.Uint16(b[ipAt+2:])) - podtest.IPv4Len - int(b[tcpAt+12]>>4)*4
		if binary.BigEndian.Uint32(b[tcpAt+4:]) == s.next {
			s.next += uint32(length)
		}
		if length > 0 && (count%acknowledged == 0 || s.next == end) {
			if err := s.write(s.ack); err != nil {
				return err
			}
		}
	}
	return nil
}

// smallData is what a small segment has.
const smallData = 64

// smallSegments is how many small segments of TCP a second arrive: the p50 of bursts.
func smallSegments(b bench, p *path) (float64, error) {
	took, err := p.stream(b, burst, make([]byte, smallData), 2)
	return burst / quantile(took, 0.5).Seconds(), err
}

// bulk is how much data by TCP, with segmentation offload, arrives.
func bulk(b bench, p *path) (float64, error) {
	const times, size = 4, 1 << 16 // so little that what else runs interrupts few of them
	took, err := p.stream(b, times, make([]byte, size), 1)
	return 8 * times * size / quantile(took, 0.5).Seconds() / 1e9, err
}

// stream transfers the same over and over.
func (p *path) stream(b bench, times int, data []byte, acknowledged int) (took []time.Duration, err error) {
	s, err := p.dial()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return b.repeat(func() (bool, error) { return true, s.transfer(times, data, acknowledged) })
}
