package dhcp

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// unlinkWatch waits for the deletion of one interface. A packet socket learns
// of its interface going down but not of one that is deleted while it is down:
// nothing would ever be read, and nothing said. The kernel's announcement of
// the deletion closes that gap; it is the only use of netlink here, and reads
// nothing but this one event.
type unlinkWatch struct {
	file *os.File
	raw  syscall.RawConn
}

// Offsets in a netlink message with a struct ifinfomsg (linux/rtnetlink.h).
const (
	nlTypeAt   = 4
	nlFamilyAt = 16
	nlIndexAt  = 20
)

// watchUnlink opens the watch in the network namespace of the calling thread.
func watchUnlink(index int) (_ *unlinkWatch, err error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	w := &unlinkWatch{file: os.NewFile(uintptr(fd), "netlink")}
	defer func() {
		if err != nil {
			_ = w.file.Close()
		}
	}()
	if err := setFilter(fd, unlinkFilter(index)); err != nil {
		return nil, fmt.Errorf("attach filter for link deletion: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK}); err != nil {
		return nil, fmt.Errorf("subscribe to link deletion: %w", err)
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, fmt.Errorf("access netlink socket: %w", err)
	}
	return w, nil
}

// unlinkFilter passes RTM_DELLINK of one interface. A port that leaves its
// bridge is announced by the same type, but in the bridge's family. The loads
// are big-endian, the message is in the host's order.
func unlinkFilter(index int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: nlTypeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(htons(unix.RTM_DELLINK)), SkipFalse: 5},
		bpf.LoadAbsolute{Off: nlFamilyAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_UNSPEC, SkipFalse: 3},
		bpf.LoadAbsolute{Off: nlIndexAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: htonl(uint32(index)), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	}
}

// wait returns ErrGone once the interface is deleted, another error if the
// watch was closed.
func (w *unlinkWatch) wait() error {
	var b [1]byte // what it says is known: the filter let it pass
	var err error
	waitErr := w.raw.Read(func(fd uintptr) bool {
		_, _, err = unix.Recvfrom(int(fd), b[:], unix.MSG_TRUNC|unix.MSG_PEEK)
		// ENOBUFS: the kernel had no memory for some event, whichever.
		return !temporary(err) && !errors.Is(err, unix.ENOBUFS)
	})
	if waitErr != nil {
		return waitErr
	}
	if err != nil {
		return os.NewSyscallError("recvfrom", err)
	}
	return ErrGone
}
