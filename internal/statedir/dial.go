package statedir

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

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
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // without the path, which says nothing here
		}
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

// Connect connects to a unix socket. The kernel does so at once or says why not, EAGAIN if
// too many wait there (connect(2)), so the context's end is not for it: a dialer calls a
// deadline an "i/o timeout" before the context has ended.
func Connect(ctx context.Context, address string) (*net.UnixConn, error) {
	conn, err := (&net.Dialer{}).DialContext(context.WithoutCancel(ctx), "unix", address)
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
