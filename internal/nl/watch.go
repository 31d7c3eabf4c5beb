package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watch hears what becomes of one interface. A packet socket learns of its
// interface going down but not of one that is deleted while it is down: nothing
// would ever be read, and nothing said. Nor does it learn of a carrier. The
// kernel's announcements close that gap; they are the only use of netlink here.
type watch struct {
	file *os.File
	raw  syscall.RawConn
}

// Offsets in a netlink message with a struct ifinfomsg (linux/rtnetlink.h).
const (
	nlTypeAt   = 4
	nlFamilyAt = 16
	nlIndexAt  = 20
	nlFlagsAt  = 24
	nlLen      = 32
)

// openWatch opens the watch in the network namespace of the calling thread.
func openWatch(index int) (_ *watch, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	w := &watch{file: os.NewFile(uintptr(fd), "netlink")}
	defer func() {
		if err != nil {
			_ = w.file.Close()
		}
	}()
	if err := setFilter(fd, watchFilter(index)); err != nil {
		return nil, fmt.Errorf("attach filter for link announcements: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return nil, fmt.Errorf("subscribe to link announcements: %w", err)
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("access netlink socket: %w", err)
	}
	return w, nil
}

// watchFilter passes RTM_NEWLINK and RTM_DELLINK of one interface. A port that
// leaves its bridge is announced by the same types, but in the bridge's family.
// The loads are big-endian, the message is in the host's order.
func watchFilter(index int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: nlTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(htons(unix.RTM_DELLINK)), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(htons(unix.RTM_NEWLINK)), SkipFalse: 5},
		bpf.LoadAbsolute{Off: nlFamilyAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNSPEC, SkipFalse: 3},
		bpf.LoadAbsolute{Off: nlIndexAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: htonl(uint32(index)), SkipFalse: 1},
		bpf.RetConstant{Val: nlLen}, // what is read of it
		bpf.RetConstant{Val: 0},
	}
}

// follow calls up each time the interface becomes able to send, and returns
// ErrGone once it is deleted, another error if the watch was closed.
func (w *watch) follow(up func()) error {
	running := false // so at worst up is called for one that was up before
	for {
		b, err := w.next()
		if err != nil {
			return err
		}
		if len(b) < nlLen {
			running = false // some were lost
			continue
		}
		if binary.NativeEndian.Uint16(b[nlTypeAt:]) == unix.RTM_DELLINK {
			return ErrGone
		}
		was := running
		running = binary.NativeEndian.Uint32(b[nlFlagsAt:])&unix.IFF_RUNNING != 0
		if running && !was {
			up()
		}
	}
}

// next waits for an announcement. That of the deletion stays to be read again.
func (w *watch) next() ([]byte, error) {
	b := make([]byte, nlLen)
	var n int
	var err error
	waitErr := w.raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), b, unix.MSG_PEEK)
		if err == nil && (n < nlLen || binary.NativeEndian.Uint16(b[nlTypeAt:]) != unix.RTM_DELLINK) {
			n, _, err = unix.Recvfrom(int(fd), b, 0)
		}
		return !temporary(err)
	})
	switch {
	case waitErr != nil:
		return nil, waitErr
	case errors.Is(err, unix.ENOBUFS):
		return nil, nil // the kernel had no memory for some announcement, whichever
	case err != nil:
		return nil, os.NewSyscallError("recvfrom", err)
	}
	return b[:n], nil
}
