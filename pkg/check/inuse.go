package check

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
)

// A check opens the tap as a VM does, and should not be taken for one. While it
// has the tap open it listens on an abstract UNIX socket (unix(7)), which every
// process of the pod's network namespace sees, and which ends with it.
func socketOf(tap string) string { return "@virt-launcher-net/check/" + tap }

// announce begins before the tap is opened. Close it when that is closed. That it
// does not work, as beside another check, is no reason not to check.
func announce(tap string) io.Closer {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socketOf(tap), Net: "unix"})
	if err != nil {
		return io.NopCloser(nil)
	}
	return l
}

// UsedByVM reports whether somebody has the tap open who is no check, in the network
// namespace of the calling thread. It waits for the end of a check.
func UsedByVM(ctx context.Context, tap string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout+time.Second)
	defer cancel()
	for {
		inUse, err := tun.InUse(tap)
		if err != nil || !inUse || !checkEnded(ctx, tap) {
			return inUse, err
		}
	}
}

// checkEnded waits for the end of a check; false: there is none, or ctx ended.
func checkEnded(ctx context.Context, tap string) bool {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socketOf(tap), Net: "unix"})
	if err != nil {
		return false
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = conn.Read(make([]byte, 1)) // nobody writes: it returns when the listener is closed
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
