package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// PodSocketName is the name of the socket on which a server of many pods answers in each
// pod's network namespace. It is abstract (unix(7)): each container of the pod can
// connect, without a mount and whatever its user, and nobody else can. Any of them can
// have taken the name before, so no one can rely on who answers there.
const PodSocketName = "@virt-launcher-net"

const (
	// podConnections is how many can ask at once in a pod. One more ends another.
	podConnections = 16
	// Where somebody in the pod has the socket's name, it is tried again after
	// firstAgain, then each time after twice as long, up to lastAgain.
	firstAgain = time.Second
	lastAgain  = time.Minute
)

// OpenPodSocket opens the socket in the network namespace of the calling thread, for
// ServePod, which closes it.
func OpenPodSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", PodSocketName, err)
	}
	return os.NewFile(uintptr(fd), PodSocketName), nil
}

// ServePod answers on the socket until ctx ends or the server is closed. While somebody
// else has its name, or the process may open no more files, it tries again.
func (s *Server) ServePod(ctx context.Context, log *slog.Logger, socket *os.File) {
	defer socket.Close()
	listener, err := listenIn(socket)
	for pause := firstAgain; err != nil; pause = min(2*pause, lastAgain) {
		switch {
		case pause > firstAgain: // it is told
		case errors.Is(err, unix.EADDRINUSE):
			log.Warn("a process of the pod has the name of the socket, so status and wait do not work there: trying again", "socket", PodSocketName)
		default:
			log.Warn("can't listen in the pod, so status and wait do not work there: trying again", "socket", PodSocketName, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		listener, err = listenIn(socket)
	}
	socket.Close() // the listener has a copy
	defer listener.Close()
	s.http.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	_ = s.http.Serve(&fewConns{Listener: listener}) // it ends with the server
}

// listenIn listens on the socket, which may have its name from an earlier try.
func listenIn(socket *os.File) (net.Listener, error) {
	fd := int(socket.Fd())
	if name, err := unix.Getsockname(fd); err != nil || name.(*unix.SockaddrUnix).Name != PodSocketName {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: PodSocketName}); err != nil {
			return nil, err
		}
	}
	if err := unix.Listen(fd, podConnections); err != nil {
		return nil, err
	}
	return net.FileListener(socket)
}
