// Package tun opens taps as a virtual machine monitor does, and tells whether one
// has them open. Like pkg/prepare it acts on the network namespace of the calling
// thread.
package tun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Device makes and opens taps.
const Device = "/dev/net/tun"

// VNetHeader is the length of struct virtio_net_hdr (linux/virtio_net.h), which
// is in front of each frame on a tap that Open has opened.
const VNetHeader = 10

// loopbackIndex is the index of the loopback in every network namespace
// (LOOPBACK_IFINDEX, linux/net_namespace.h).
const loopbackIndex = 1

// ErrMissing is that there is no such tap, and what helps.
var ErrMissing = errors.New("prepare or run creates it again; then restart the VM that had it open, or plug its NIC in again")

// OpenDevice opens the device that makes taps. The caller closes the descriptor.
func OpenDevice(flags int) (int, error) {
	fd, err := unix.Open(Device, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, deviceError(err)
	}
	return fd, nil
}

// Supported tells why no tap can be made or opened; nil: it can. It makes none.
func Supported() error {
	fd, err := OpenDevice(0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.IoctlGetInt(fd, unix.TUNGETFEATURES); err != nil {
		return deviceError(fmt.Errorf("it is another device: %w", err))
	}
	return nil
}

// deviceError is why the device can't be opened, with the way out.
func deviceError(err error) error {
	remedy := "the container needs the node's: a hostPath volume of type CharDevice, or a device plugin"
	switch {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		remedy = "the node's kernel has no taps (CONFIG_TUN): load the module tun on the node"
	case errors.Is(err, fs.ErrPermission):
		remedy = "the container may not use it: let a device plugin give it, or allow character device 10:200"
	}
	return fmt.Errorf("open %s: %w (%s)", Device, err, remedy)
}

// Open opens the tap of that name and number of queues. It never makes one: the
// error is [ErrMissing] if there is none, and [unix.EBUSY] if somebody has a tap of
// one queue open. The caller closes the file, which does not block.
//
// A persistent tap keeps what its last user made of it, so each user begins with
// making it what it needs. Open makes it as new, and so must not be called where
// a tap with several queues is in use: see [InUse].
func Open(name string, queues int) (*os.File, error) {
	file, err := open(name, queues)
	if errors.Is(err, ErrMissing) {
		return nil, fmt.Errorf("%s is missing: %w", name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open tap %s: %w", name, err)
	}
	return file, nil
}

func open(name string, queues int) (*os.File, error) {
	fd, err := OpenDevice(unix.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if err = Exists(name); err == nil {
		err = attach(fd, name, queues)
	}
	if err == nil {
		err = renew(fd)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	// Only now: the poller takes a descriptor that is not attached for broken.
	return os.NewFile(uintptr(fd), name), nil
}

// attach makes fd a queue of the tap. Where there is no tap the kernel would make
// one, with the loopback's index, and so can't (tun_set_iff, drivers/net/tun.c).
func attach(fd int, name string, queues int) error {
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETIFINDEX, loopbackIndex); err != nil {
		return fmt.Errorf("set index: %w", err)
	}
	// A socket filter that somebody left is attached by an address in the memory of
	// a process that is no more.
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_NOFILTER)
	if queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	switch {
	case errors.Is(err, unix.EBUSY):
		return cmp.Or(Exists(name), err)
	case errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: it is not a tap, or not one with %d queues", err, max(1, queues))
	}
	return err
}

// Exists returns [ErrMissing] if no link has the name.
func Exists(name string) error {
	l, err := find(name)
	if err == nil && l == nil {
		return ErrMissing
	}
	return err
}

// renew makes the tap at fd what a new one is. The flags, of which IFF_VNET_HDR
// is one, were set when fd was attached.
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

// InUse reports whether somebody has the tap open. A tap with several queues could be
// opened once more, and its frames would go to both. One that is missing is not in use.
func InUse(name string) (bool, error) {
	l, err := find(name)
	return l != nil && l.InUse(), err
}

// Check tells why the link of that name is no tap; nil: it is one, or missing.
func Check(name string) error {
	l, err := find(name)
	if err == nil && l != nil && (l.Tun == nil || !l.Tun.Tap) {
		err = fmt.Errorf("%s is no tap", name)
	}
	return err
}

// find returns the link of that name; nil: there is none.
func find(name string) (*nl.Link, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	l, err := conn.Link(name)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	return &l, err
}

// WaitUnused waits until nobody has the tap open, or ctx ends.
func WaitUnused(ctx context.Context, name string) error {
	events, err := nl.Subscribe(unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		if inUse, err := InUse(name); err != nil || !inUse {
			return err
		}
		if err := events.Wait(ctx); err != nil {
			return fmt.Errorf("wait until the tap %s is closed: %w", name, err)
		}
	}
}
