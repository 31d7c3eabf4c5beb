package engine

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Tap is the VM's end of the network, a persistent device.
type Tap struct {
	Name   string
	MAC    mac.Addr // of the device in the pod, not the VM's
	MTU    int
	Queues int
	Owner  *Owner // nil: who may open it needs NET_ADMIN
	Label  string // SELinux'; empty: that of who makes it
}

// Ops make the tap, which is nobody's port yet, or complete it. again is whether the
// pod is prepared, and somebody has deleted the tap.
func (t Tap) Ops(s *State, again bool) ([]Op, error) {
	l := s.Link(t.Name)
	if l == nil {
		return slices.Concat([]Op{AddTap{tap: t, again: again}}, MTU.Set(t.Name, newMTU, t.MTU), NoAddressesNew(t.Name, t.MTU)), nil
	}
	if err := t.matches(*l); err != nil {
		return nil, err
	}
	return slices.Concat(t.ownerOps(*l), MAC.Set(l.Name, l.MAC, t.MAC), MTU.Set(l.Name, l.MTU, t.MTU), NoAddresses(*l)), nil
}

// Delete deletes the tap, which is l; port is what makes a new one the port that it
// is.
func (t Tap) Delete(s *State, l nl.Link, port ...Op) Op {
	t.MAC = l.MAC
	var filter []Op
	if s.Filtered[l.Index] {
		filter = []Op{AddChecksumFilter{l.Name}}
	}
	return DelLink{l.Name, slices.Concat(Sequence{AddTap{tap: t, index: l.Index}},
		MTU.Set(l.Name, newMTU, l.MTU), AddrGenModeOfNew(l), filter, port, Up.Set(l.Name, false, l.Up()))}
}

// newMTU is what a device has that is made (ETH_DATA_LEN).
const newMTU = 1500

// NoAddresses keeps the kernel from giving a link an IPv6 address of its own.
func NoAddresses(l nl.Link) []Op {
	if l.AddrGenMode == nl.AddrGenModeUnknown {
		return nil
	}
	return AddrGenMode.Set(l.Name, l.AddrGenMode, AddrGenModeNone)
}

// NoAddressesNew is NoAddresses of a link that is made. One too small for IPv6 has
// none.
func NoAddressesNew(name string, mtu int) []Op {
	if mtu < guest.MinIPv6MTU {
		return nil
	}
	return AddrGenMode.Set(name, 0, AddrGenModeNone)
}

// AddrGenModeOfNew gives a link that is made again the mode that it had, whatever the
// node gives a new one.
func AddrGenModeOfNew(l nl.Link) []Op {
	return []Op{set[int]{AddrGenMode, l.Name, 0, max(0, l.AddrGenMode)}}
}

// AddTap makes a persistent tap device. It has its MAC before it persists: by that
// it is told from others.
type AddTap struct {
	tap   Tap
	index int // of the link; 0: the kernel's choice
	again bool
}

func (o AddTap) String() string {
	s := "ip tuntap add dev " + o.tap.Name + " mode tap vnet_hdr"
	if o.tap.Label != "" {
		s = "runcon " + o.tap.Label + " " + s
	}
	if o.tap.Queues > 1 {
		s += " multi_queue"
	}
	if owner := o.tap.owner(); owner != (Owner{-1, -1}) {
		s += " " + owner.String()
	}
	return s + "\n" + Sequence(MAC.Set(o.tap.Name, mac.Addr{}, o.tap.MAC)).String()
}

// Inverse deletes it.
func (o AddTap) Inverse() Op { return DelLink{Name: o.tap.Name, Rebuild: Sequence{o}} }

// Supported opens the device that makes taps.
func (o AddTap) Supported(*Kernel) error {
	err := tun.Supported()
	if err == nil && o.tap.Label != "" {
		err = canLabel()
	}
	return err
}

// Do makes it.
func (o AddTap) Do(k *Kernel) error {
	fd, err := tun.OpenDevice(0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(o.tap.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if o.tap.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	if o.index != 0 {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, o.index); err != nil {
			return fmt.Errorf("set index: %w", err)
		}
	}
	if o.tap.Label == "" {
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	} else {
		err = setIFFAs(o.tap.Label, fd, o.tap.Name, flags)
	}
	if err != nil {
		return err
	}
	if err := MAC.Do(k.Conn, nl.Ref{Name: o.tap.Name}, o.tap.MAC); err != nil {
		return fmt.Errorf("set MAC: %w", err)
	}
	if err := o.tap.keep(fd); err != nil {
		return err
	}
	if o.again {
		k.log.Warn("the tap was missing and is created again: restart the VM that had it open, or plug its NIC in again", "tap", o.tap.Name)
	}
	return nil
}

// matches says how an existing link differs from the tap in what can't be set.
// Not in IFF_VNET_HDR: whoever opens the tap sets it.
func (t Tap) matches(l nl.Link) error {
	switch {
	case l.Tun == nil || !l.Tun.Tap:
		return &NameTakenError{t.Name, TapRole, "by " + Kind(l), "give that another name"}
	case l.Type != unix.ARPHRD_ETHER:
		return fmt.Errorf("the tap %s has become a link of type %d, without Ethernet frames: %s", t.Name, l.Type, deleted(l))
	case l.Tun.MultiQueue != (t.Queues > 1):
		is, want := "one queue", "several"
		if l.Tun.MultiQueue {
			is, want = "several queues", "one"
		}
		return &NameTakenError{t.Name, TapRole, fmt.Sprintf("by a tap with %s, not %s", is, want), deleted(l)}
	}
	is, want := Owner{l.Tun.Owner, l.Tun.Group}, t.owner()
	if want.UID < 0 && is.UID >= 0 || want.GID < 0 && is.GID >= 0 { // the kernel can't make it nobody's again
		return &NameTakenError{t.Name, TapRole, fmt.Sprintf("by a tap of another owner, %s", is), deleted(l)}
	}
	return nil
}

// deleted is how a name is freed that a tap of ours has, or one like it: another program, such
// as the CNI plugin tap, may have made that.
func deleted(tap nl.Link) string {
	return fmt.Sprintf("delete it if nobody else needs it (ip link delete %s)", tap.Name)
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
func (t Tap) ownerOps(l nl.Link) []Op {
	is, want := Owner{l.Tun.Owner, l.Tun.Group}, t.owner()
	if is == want && l.Tun.Persist || l.InUse() {
		return nil
	}
	return []Op{keepTap{tap: t, from: is}}
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

// Inverse gives it back to whose it was.
func (o keepTap) Inverse() Op {
	back := o.tap
	back.Owner = &o.from
	return keepTap{tap: back, from: o.tap.owner()}
}

// Do sets it, unless a VM has opened the tap meanwhile, which it may.
func (o keepTap) Do(*Kernel) error {
	file, err := tun.Open(o.tap.Name, o.tap.Queues)
	if errors.Is(err, unix.EBUSY) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	return o.tap.keep(int(file.Fd()))
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
