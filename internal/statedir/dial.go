package statedir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial connects to a socket of the state directory, and says who listens there.
// That has to be root, the user, or the owner of the directory, or else the error
// wraps [ErrUnfit].
func Dial(ctx context.Context, path string) (net.Conn, *unix.Ucred, error) {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Type() != fs.ModeSocket {
		return nil, nil, cmp.Or(err, unfit(path, "it is not a socket"))
	}
	// By the descriptor: it can't be exchanged meanwhile, and a socket's path has
	// 107 bytes at most.
	conn, err := Connect(ctx, fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	peer, err := Peer(conn)
	if err == nil {
		var trusted bool
		if trusted, err = isTrusted(path, peer.Uid); err == nil && !trusted {
			err = unfit(path, fmt.Sprintf("%s of user %d listens there: run as that user, or remove the socket", Process(int(peer.Pid)), peer.Uid))
		}
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, peer, nil
}

const (
	// roomTime is how long who listens has to take others who wait there.
	roomTime = 2 * time.Second
	// roomStep is after how long the context is looked at meanwhile.
	roomStep = 100 * time.Millisecond
)

// Connect connects to a unix socket. Where as many wait already as who listens has room
// for, it waits among them: the error wraps [unix.EAGAIN] if there is still no room after
// two seconds, or when ctx ends. A socket that does not block, as a [net.Dialer]'s, would
// be told so at once (connect(2)).
func Connect(ctx context.Context, address string) (*net.UnixConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), address)
	defer f.Close() // the connection has a copy
	step := unix.NsecToTimeval(roomStep.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &step); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	for start := time.Now(); ; {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: address})
		again := errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) && time.Since(start) < roomTime && ctx.Err() == nil
		if !again {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// Peer returns who listens at the other end, as this process knows them: a process of
// another PID namespace is 0 (SO_PEERCRED, unix(7)).
func Peer(conn *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(controlErr, err)
}
