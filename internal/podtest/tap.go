package podtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// vnetHeaderLen is sizeof(struct virtio_net_hdr_v1), the header before each frame
// that machines with virtio 1 set on a tap with IFF_VNET_HDR
// (include/uapi/linux/virtio_net.h). It stays on a persistent tap, which begins
// with a shorter one.
const vnetHeaderLen = 12

// maxFrame is the largest frame on a tap with segmentation offload.
const maxFrame = vnetHeaderLen + 14 + 1<<16

// Tap is the guest's end of a tap device: what it reads the pod sends to the
// guest, what it writes the guest sends. While it is open the device has a
// carrier. Reads and writes may run at the same time.
type Tap struct {
	file   *os.File
	parked []*os.File // queues beyond the first, detached
	ns     *NS
}

// OpenTap opens the persistent tap name of the namespace as QEMU does, with
// IFF_VNET_HDR and as many queues as the guest's device has. As with a guest
// whose driver has not asked for more, only the first carries traffic. No
// offloads: frames are whole and have their checksums. Like QEMU it gets
// EINVAL if the device was made for another number of queues (one or many).
// The caller closes it.
func OpenTap(ns *NS, name string, queues int) (*Tap, error) {
	tap := &Tap{ns: ns}
	err := ns.Do(func() error {
		if _, err := net.InterfaceByName(name); err != nil { // opening would make one
			return err
		}
		for i := range max(queues, 1) {
			file, err := openQueue(name, queues > 1)
			if err != nil {
				return err
			}
			if i == 0 {
				tap.file = file
				continue
			}
			tap.parked = append(tap.parked, file)
			if err := detachQueue(file); err != nil {
				return err
			}
		}
		return setOffload(tap.file, 0)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open tap %s: %w", name, err), tap.Close())
	}
	return tap, nil
}

// letGo is how long a tap may be busy after it was closed: a process that is being
// started has all descriptors, and lets go of them only after it has left its
// parent to go on (begin_new_exec, fs/exec.c), so that no lock of ours helps.
const letGo = 10 * time.Second

// WaitReleased waits until nobody has a tap of the namespace open, or it is gone,
// for a second at most: another may have it by right.
func WaitReleased(ns *NS, tap string) { waitReleased(ns, tap, time.Second) }

// The kernel's event comes up to a second later (linkwatch_nextevent, net/core/link_watch.c), so
// it is looked at again and again.
func waitReleased(ns *NS, tap string, atMost time.Duration) {
	for start := time.Now(); time.Since(start) < atMost; time.Sleep(time.Millisecond) {
		var link netlink.Link
		err := ns.Do(func() (err error) {
			link, err = netlink.LinkByName(tap)
			return err
		})
		if err != nil || link.Attrs().RawFlags&unix.IFF_LOWER_UP == 0 {
			return
		}
	}
}

// waitTaps waits until the namespace's taps are as they stay: one that was just made is
// still open in a process that is being started. A VM may have it open by right, so it
// takes a tenth of a second at most.
func waitTaps(ns *NS) error {
	var links []netlink.Link
	err := ns.Do(func() (err error) {
		links, err = netlink.LinkList()
		return err
	})
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // whose links are those that are
		return fmt.Errorf("list links: %w", err)
	}
	for _, link := range links {
		if link.Type() == "tun" && link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0 {
			waitReleased(ns, link.Attrs().Name, 100*time.Millisecond)
		}
	}
	return nil
}

// openQueue attaches a descriptor to the tap name of the current namespace,
// which is made if it does not exist and then ends with the descriptor.
func openQueue(name string, multi bool) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	file, err := attachQueue(fd, name, multi)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return file, nil
}

func attachQueue(fd int, name string, multi bool) (*os.File, error) {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if multi {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	for start := time.Now(); errors.Is(err, unix.EBUSY) && time.Since(start) < letGo; err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req) {
		time.Sleep(time.Millisecond) // there is no event
	}
	if err != nil {
		return nil, os.NewSyscallError("ioctl TUNSETIFF", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHeaderLen); err != nil {
		return nil, os.NewSyscallError("ioctl TUNSETVNETHDRSZ", err)
	}
	// Only now: the poller takes a descriptor that is not attached for broken.
	return os.NewFile(uintptr(fd), name), nil
}

func detachQueue(file *os.File) error {
	req := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_DETACH_QUEUE}
	return ioctl(file, "TUNSETQUEUE", unix.TUNSETQUEUE, uintptr(unsafe.Pointer(&req)))
}

// setOffload tells the kernel which TUN_F_ features the reader understands.
func setOffload(file *os.File, features uintptr) error {
	return ioctl(file, "TUNSETOFFLOAD", unix.TUNSETOFFLOAD, features)
}

// ioctl does not use file.Fd, which in some versions of Go makes a file
// blocking and its deadlines void.
func ioctl(file *os.File, name string, request, arg uintptr) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var errno unix.Errno
	if err := conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, request, arg)
	}); err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("ioctl "+name, errno)
	}
	return nil
}

// Read reads one Ethernet frame. The error is os.ErrDeadlineExceeded after the
// deadline and os.ErrClosed once the tap is closed.
func (t *Tap) Read(frame []byte) (int, error) {
	buf := make([]byte, vnetHeaderLen+len(frame))
	n, err := t.file.Read(buf)
	if err != nil {
		return 0, err
	}
	return copy(frame, buf[min(vnetHeaderLen, n):n]), nil
}

// Write sends one Ethernet frame with complete checksums. The error is
// unix.EIO while the device is down.
func (t *Tap) Write(frame []byte) (int, error) {
	buf := make([]byte, vnetHeaderLen+len(frame))
	copy(buf[vnetHeaderLen:], frame)
	n, err := t.file.Write(buf)
	return max(n-vnetHeaderLen, 0), err
}

// Request is what a virtio header asks for (struct virtio_net_hdr,
// linux/virtio_net.h).
type Request struct {
	Checksum      bool   // VIRTIO_NET_HDR_F_NEEDS_CSUM
	Start, Offset uint16 // where the sum begins, and where in what it covers it is written
	GSO           uint8  // VIRTIO_NET_HDR_GSO_TCPV4, …; 0: the frame is one segment
	HeaderLen     uint16 // of a frame that is to be segmented
	Size          uint16 // of its segments
	Outer, Inner  uint16 // where the UDP header of a tunnel and the packet in it begin (struct virtio_net_hdr_v1_hash_tunnel); for AskTunnel
}

// Ask sends one Ethernet frame with a request.
func (t *Tap) Ask(r Request, frame []byte) error {
	_, err := t.file.Write(append(r.header(vnetHeaderLen), frame...))
	return err
}

// tunnelHeaderLen is sizeof(struct virtio_net_hdr_v1_hash_tunnel).
const tunnelHeaderLen = 24

// AcceptTunnels makes the tap one whose guest may ask for segments of what is in a
// tunnel by UDP, with [Tap.AskTunnel] alone. The error is unix.EINVAL before Linux
// 6.17.
func (t *Tap) AcceptTunnels() error {
	const tunnels = 0x80 | 0x100 // TUN_F_UDP_TUNNEL_GSO, TUN_F_UDP_TUNNEL_GSO_CSUM
	if err := setOffload(t.file, guestOffload|unix.TUN_F_USO4|unix.TUN_F_USO6|tunnels); err != nil {
		return err
	}
	length := int32(tunnelHeaderLen)
	return ioctl(t.file, "TUNSETVNETHDRSZ", unix.TUNSETVNETHDRSZ, uintptr(unsafe.Pointer(&length)))
}

// AskTunnel is [Tap.Ask] on a tap that accepts tunnels.
func (t *Tap) AskTunnel(r Request, frame []byte) error {
	header := r.header(tunnelHeaderLen)
	binary.NativeEndian.PutUint16(header[20:], r.Outer)
	binary.NativeEndian.PutUint16(header[22:], r.Inner)
	_, err := t.file.Write(append(header, frame...))
	return err
}

func (r Request) header(length int) []byte {
	h := []byte{0, r.GSO}
	if r.Checksum {
		h[0] = 1
	}
	for _, word := range []uint16{r.HeaderLen, r.Size, r.Start, r.Offset} {
		h = binary.NativeEndian.AppendUint16(h, word)
	}
	return append(h, make([]byte, length-len(h))...)
}

// SetReadDeadline ends pending and future reads at the given time; zero: never.
func (t *Tap) SetReadDeadline(deadline time.Time) error {
	return t.file.SetReadDeadline(deadline)
}

// SetDeadline is SetReadDeadline for reads and writes.
func (t *Tap) SetDeadline(deadline time.Time) error {
	return t.file.SetDeadline(deadline)
}

// Close leaves the device, which loses its carrier.
func (t *Tap) Close() error {
	var errs []error
	for _, file := range append(t.parked, t.file) {
		if file != nil {
			errs = append(errs, file.Close())
		}
	}
	if t.file != nil && errs[len(errs)-1] == nil {
		WaitReleased(t.ns, t.file.Name())
	}
	return errors.Join(errs...)
}
