package prepare

import (
	"cmp"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// ErrTapMissing is that there is no such tap, and what helps.
var ErrTapMissing = tun.ErrMissing

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
	file, err := tun.Open(o.tap.Name, o.tap.Queues)
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
