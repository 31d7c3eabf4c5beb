package packet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// receiveBuffer bounds, in bytes of the kernel's accounting, what waits to be
// read: some dozens of messages, more than a guest's client ever has under way.
const receiveBuffer = 16 << 10

// MaxFrame is the largest frame that is read. Those of clients are a third of
// it.
const MaxFrame = 2048

var (
	// ErrGone means that the interface a Conn was opened on does not exist any
	// more, or was moved to another network namespace.
	ErrGone = errors.New("interface is gone")
	// ErrTooLong means that a frame was longer than MaxFrame.
	ErrTooLong = errors.New("frame is too long")
)

// Conn is a packet socket on one Ethernet interface that receives what its
// filter lets pass, and nothing else. It works where the interface is down, has
// no carrier, or is a bridge's port, and needs no address there.
//
// The socket is used directly rather than through a package: the answer whether
// a checksum is still missing comes as control data (packet(7),
// PACKET_AUXDATA), which the usual ones do not hand on.
type Conn struct {
	// Link is the interface when the Conn was opened.
	Link nl.Link

	file  *os.File
	raw   syscall.RawConn
	ready *ready
	oob   []byte
	watch *nl.LinkWatch
}

// Listen opens a Conn on the interface in the network namespace of the calling
// thread, which needs CAP_NET_RAW there. The Conn can be used by any goroutine
// then, one reader at a time. Close it.
func Listen(name string, filter []bpf.Instruction) (_ *Conn, err error) {
	// No protocol yet: nothing is received before the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "packet:"+name), oob: make([]byte, oobSize)}
	defer func() {
		if err != nil {
			_ = c.Close()
		}
	}()
	links, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer links.Close()
	if c.Link, err = links.Link(name); err != nil {
		return nil, err
	}
	if c.Link.Type != unix.ARPHRD_ETHER {
		return nil, errors.New("not an Ethernet interface")
	}
	// The watch is first, so that no deletion is missed.
	if c.watch, err = nl.WatchLink(c.Link.Index); err != nil {
		return nil, err
	}
	if err := c.bind(fd, filter); err != nil {
		return nil, err
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("access packet socket: %w", err)
	}
	if c.ready, err = newReady(fd); err != nil {
		return nil, fmt.Errorf("wait for packet socket: %w", err)
	}
	return c, nil
}

func (c *Conn) bind(fd int, filter []bpf.Instruction) error {
	if err := setFilter(fd, filter); err != nil {
		return fmt.Errorf("attach filter: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer); err != nil {
		return fmt.Errorf("bound receive buffer: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return fmt.Errorf("ask for auxiliary data: %w", err)
	}
	// Spares the kernel a clone of each frame to the guest. Older ones than
	// Linux 4.20 do not know it; the filter does without.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("ignore outgoing frames: %w", err)
	}
	// All protocols: those bound to one are served after the bridge, which has
	// taken the frame by then.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: c.Link.Index}); err != nil {
		return fmt.Errorf("bind packet socket: %w", err)
	}
	return nil
}

// SourceFor is the source of frames to a guest: the interface's own address,
// unless that is the guest's, who ignores frames from itself.
func (c *Conn) SourceFor(guest mac.Addr) mac.Addr {
	source := c.Link.MAC
	if source == guest {
		source[5] ^= 1
	}
	return source
}

// Flags are the interface's (IFF_UP, IFF_RUNNING, …), of which IFF_LOWER_UP can't be told;
// none if it is gone.
func (c *Conn) Flags() uint32 {
	req, err := unix.NewIfreq(c.Link.Name)
	if err != nil {
		return 0
	}
	ctlErr := c.raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.SIOCGIFFLAGS, req) })
	if err := cmp.Or(ctlErr, err); err != nil {
		return 0
	}
	return uint32(req.Uint16())
}

// Running tells whether the interface is up and has a carrier: somebody has
// opened the tap.
func (c *Conn) Running() bool { return c.Flags()&unix.IFF_RUNNING != 0 }

// Close ends a read that is under way and frees the sockets.
func (c *Conn) Close() error {
	var err error
	if c.ready != nil {
		err = c.ready.close()
	}
	if c.watch != nil {
		err = errors.Join(err, c.watch.Close())
	}
	return errors.Join(err, c.file.Close())
}

// setDeadline is until when all that waits, now or later, does so; zero: without end.
// It can fail only after Close, which ends all waiting itself.
func (c *Conn) setDeadline(t time.Time) {
	_ = c.ready.file.SetReadDeadline(t)
	_ = c.watch.SetDeadline(t)
}

var oobSize = unix.CmsgSpace(auxdataLen)

// Of struct tpacket_auxdata in linux/if_packet.h only the first field matters.
const auxdataLen = 20

// read waits for a frame and reads it into b. checksumPending is true
// where the sender left the checksum to hardware that a tap does not have: it
// is not there yet, and nothing can have damaged the packet. The error is errQuiet once
// if there is none for as long as ready.alarm has said.
func (c *Conn) read(b []byte) (n int, checksumPending bool, err error) {
	var oobn, flags int
	receive := func(fd uintptr) { n, oobn, flags, err = recvmsg(fd, b, c.oob) }
	waitErr := c.ready.wait(func() bool {
		if closed := c.raw.Control(receive); closed != nil {
			err = os.ErrClosed
		}
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) // else it waits
	})
	switch {
	case waitErr != nil:
		return 0, false, waitErr
	case errors.Is(err, os.ErrClosed):
		return 0, false, err
	case err != nil:
		return 0, false, os.NewSyscallError("recvmsg", err)
	case flags&unix.MSG_TRUNC != 0:
		return 0, false, ErrTooLong
	}
	return n, checksumPendingIn(c.oob[:oobn]), nil
}

// Write sends a frame out of the interface. It does not wait where that takes no
// more for the time being: a guest that does not read would keep us for good.
func (c *Conn) Write(b []byte) error {
	var err error
	if c.raw.Control(func(fd uintptr) { err = send(fd, b) }) != nil {
		return os.ErrClosed
	}
	return os.NewSyscallError("send", err)
}

// checksumPendingIn looks for the kernel's word that the checksum is not there.
func checksumPendingIn(oob []byte) bool {
	header, data, _, err := unix.ParseOneSocketControlMessage(oob)
	return err == nil && header.Level == unix.SOL_PACKET && header.Type == unix.PACKET_AUXDATA &&
		len(data) >= 4 && binary.NativeEndian.Uint32(data)&unix.TP_STATUS_CSUMNOTREADY != 0
}

// Dropped reads, and resets, how many frames the kernel dropped because nobody
// had read those before.
func (c *Conn) Dropped() uint64 {
	var stats *unix.TpacketStats
	err := c.raw.Control(func(fd uintptr) {
		stats, _ = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err != nil || stats == nil {
		return 0
	}
	return uint64(stats.Drops)
}
