package packet

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// These system calls never wait, and are made without telling the Go scheduler. At the
// first one after all threads were idle it would wake a thread that watches how long it
// takes, and the guest's answer would wait for that.

func recvmsg(fd uintptr, b, oob []byte) (n, oobn, flags int, err error) {
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	msg := unix.Msghdr{Iov: &iov, Control: &oob[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(oob))
	got, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(got), int(msg.Controllen), int(msg.Flags), nil
}

func send(fd uintptr, b []byte) error {
	if len(b) == 0 {
		return unix.EINVAL
	}
	if _, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_DONTWAIT, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func timerfdSettime(fd uintptr, t *unix.ItimerSpec) error {
	if _, _, errno := unix.RawSyscall6(unix.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(t)), 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
