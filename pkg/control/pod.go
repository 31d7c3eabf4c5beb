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
// else has its name it tries again.
func (s *Server) ServePod(ctx context.Context, log *slog.Logger, socket *os.File) {
	defer socket.Close()
	for pause := firstAgain; ; pause = min(2*pause, lastAgain) {
		err := unix.Bind(int(socket.Fd()), &unix.SockaddrUnix{Name: PodSocketName})
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			log.Warn("can't listen in the pod, so status and wait do not work there", "socket", PodSocketName, "error", err)
			return
		}
		if pause == firstAgain {
			log.Warn("a process of the pod has the name of the socket, so status and wait do not work there: trying again", "socket", PodSocketName)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
	err := unix.Listen(int(socket.Fd()), podConnections)
	var listener net.Listener
	if err == nil {
		listener, err = net.FileListener(socket)
	}
	if err != nil {
		log.Warn("can't listen in the pod, so status and wait do not work there", "socket", PodSocketName, "error", err)
		return
	}
	socket.Close() // the listener has a copy
	defer listener.Close()
	_ = s.http.Serve(&fewConns{Listener: listener}) // it ends with the server
}
