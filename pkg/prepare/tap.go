package prepare

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// ErrTapMissing is that there is no such tap, and what helps.
var ErrTapMissing = errors.New("prepare or run makes it anew; a VM that had it open must then be started again, or its NIC plugged in again")

// VNetHeader is the length of struct virtio_net_hdr (linux/virtio_net.h), which
// is in front of each frame on a tap that [Tap.Open] opened.
const VNetHeader = 10

// loopbackIndex is the index of the loopback in every network namespace
// (LOOPBACK_IFINDEX, linux/net_namespace.h).
const loopbackIndex = 1

// Open opens the tap, in the network namespace of the calling thread, as a
// virtual machine monitor does. It never makes one: the error is [ErrTapMissing]
// if there is none, and [unix.EBUSY] if somebody has a tap of one queue open.
// The caller closes the file, which does not block.
//
// A persistent tap keeps what its last user made of it, so each user begins with
// making it what it needs. Open makes it as new, and so must not be called where
// a tap with several queues is in use: see [Plan.InUse].
func (t Tap) Open() (*os.File, error) {
	file, err := t.open()
	if errors.Is(err, ErrTapMissing) {
		return nil, fmt.Errorf("%s is missing: %w", t.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open tap %s: %w", t.Name, err)
	}
	return file, nil
}

func (t Tap) open() (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutTun(err)
	}
	if err = t.exists(); err == nil {
		err = t.attach(fd)
	}
	if err == nil {
		err = renew(fd)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// Only now: the poller takes a descriptor that is not attached for broken.
	return os.NewFile(uintptr(fd), t.Name), nil
}

// attach makes fd a queue of the tap. Where there is no tap the kernel would make
// one, with the loopback's index, and so can't (tun_set_iff, drivers/net/tun.c).
func (t Tap) attach(fd int) error {
	req, err := unix.NewIfreq(t.Name)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, loopbackIndex); err != nil {
		return fmt.Errorf("set index: %w", err)
	}
	// A socket filter that somebody left is attached by an address in the memory of
	// a process that is no more.
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_NOFILTER)
	if t.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	switch {
	case errors.Is(err, unix.EBUSY):
		return cmp.Or(t.exists(), err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: it is no tap, or one for another number of queues than %d", err, max(1, t.Queues))
	}
	return err
}

// exists returns ErrTapMissing if no link has the tap's name.
func (t Tap) exists() error {
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Index(t.Name); errors.Is(err, unix.ENODEV) {
		return ErrTapMissing
	} else if err != nil {
		return err
	}
	return nil
}

// renew makes the tap at fd what a new one is. The flags, of which IFF_VNET_HDR
// is one, were set when fd was attached; what netlink shows, [Plan] looks after.
func renew(fd int) error {
	const off = -1 // instead of a program's descriptor
	for _, set := range []struct {
		name    string
		request uint
		value   int
	}{
		{"TUNSETVNETHDRSZ", unix.TUNSETVNETHDRSZ, VNetHeader},
		{"TUNSETVNETLE", unix.TUNSETVNETLE, 0},
		{"TUNSETSNDBUF", unix.TUNSETSNDBUF, math.MaxInt32},
		{"TUNSETTXFILTER", unix.TUNSETTXFILTER, 0}, // struct tun_filter with no addresses: all
		{"TUNSETCARRIER", unix.TUNSETCARRIER, 1},
		{"TUNSETSTEERINGEBPF", unix.TUNSETSTEERINGEBPF, off},
		{"TUNSETFILTEREBPF", unix.TUNSETFILTEREBPF, off},
	} {
		err := unix.IoctlSetPointerInt(fd, set.request, set.value)
		if err != nil && !errors.Is(err, unix.EINVAL) { // an older kernel has nothing of the kind to set
			return os.NewSyscallError("ioctl "+set.name, err)
		}
	}
	// Frames are to be whole and to have their checksums.
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
		return os.NewSyscallError("ioctl TUNSETOFFLOAD", err)
	}
	return os.NewSyscallError("ioctl TUNDETACHFILTER", unix.IoctlSetInt(fd, unix.TUNDETACHFILTER, 0))
}

// matches says how an existing link differs from the tap in what can't be set.
// Not in IFF_VNET_HDR: whoever opens the tap sets it.
func (t Tap) matches(l nl.Link) error {
	switch {
	case l.Tun == nil || !l.Tun.Tap:
		return &NameTakenError{t.Name, "tap", fmt.Sprintf("by a %s: delete it (ip link delete %s)", cmp.Or(l.Kind, "physical link"), t.Name)}
	case l.Type != unix.ARPHRD_ETHER:
		return fmt.Errorf("the tap %s has become a link of type %d, without Ethernet frames: delete it (ip link delete %s)", t.Name, l.Type, t.Name)
	case l.Tun.MultiQueue != (t.Queues > 1):
		is, want := "one queue", "several"
		if l.Tun.MultiQueue {
			is, want = "several queues", "one"
		}
		return &NameTakenError{t.Name, "tap", fmt.Sprintf("by a tap with %s, not %s: delete it (ip link delete %s)", is, want, t.Name)}
	}
	is, want := Owner{l.Tun.Owner, l.Tun.Group}, t.owner()
	if want.UID < 0 && is.UID >= 0 || want.GID < 0 && is.GID >= 0 { // the kernel can't make it nobody's again
		return &NameTakenError{t.Name, "tap", fmt.Sprintf("by a tap of another owner, %s: delete it (ip link delete %s)", is, t.Name)}
	}
	return nil
}

// owner is who may open the tap without NET_ADMIN; -1: everybody.
func (t Tap) owner() Owner {
	if t.Owner == nil {
		return Owner{-1, -1}
	}
	return Owner{max(t.Owner.UID, -1), max(t.Owner.GID, -1)}
}

// ownerOps gives an existing tap back its owner, and makes it persistent again.
// Only who has the tap open can do that. While a VM has, it makes no difference.
func (t Tap) ownerOps(l nl.Link) []op {
	is, want := Owner{l.Tun.Owner, l.Tun.Group}, t.owner()
	if is == want && l.Tun.Persist || l.Carrier || l.Tun.Queues > 0 {
		return nil
	}
	return []op{keepTap{tap: t, from: is}}
}

// keepTap sets the owner of a tap that nobody has open, and has it stay when
// nobody has.
type keepTap struct {
	tap  Tap
	from Owner
}

// String says it in a comment: ip(8) sets an owner only when it makes a tap.
func (o keepTap) String() string {
	return fmt.Sprintf("# tap %s: owner %s, persistent", o.tap.Name, o.tap.owner())
}

func (o keepTap) inverse() op {
	back := o.tap
	back.Owner = &o.from
	return keepTap{tap: back, from: o.tap.owner()}
}

func (o keepTap) do(*kernel) error {
	file, err := o.tap.Open()
	if errors.Is(err, unix.EBUSY) { // a VM has opened it meanwhile, and may
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := conn.Control(func(fd uintptr) { err = o.tap.keep(int(fd)) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

// setHardwareAddr sets the MAC of the tap at fd (struct ifreq, linux/if.h).
func setHardwareAddr(fd int, mac mac.Addr) error {
	req := struct {
		_      [unix.IFNAMSIZ]byte
		family uint16
		mac    [22]byte
	}{family: unix.ARPHRD_ETHER}
	copy(req.mac[:], mac[:])
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}

// keep sets the owner of the tap at fd, and has the tap stay once fd is closed.
func (t Tap) keep(fd int) error {
	owner := t.owner()
	if owner.UID >= 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, owner.UID); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if owner.GID >= 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETGROUP, owner.GID); err != nil {
			return fmt.Errorf("set group: %w", err)
		}
	}
	// Last: until here a new device goes away with the descriptor.
	return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
}
