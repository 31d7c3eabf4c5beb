package statedir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// WatchLimit tells whether err is that the kernel lets this process watch no more
// directories (inotify(7)), and returns it with the way out then.
func WatchLimit(err error) (limited bool, why error) {
	switch {
	case errors.Is(err, unix.EMFILE): // also the process's own limit, which nobody has as low
		return true, fmt.Errorf("%w: raise the node's sysctl fs.inotify.max_user_instances", err)
	case errors.Is(err, unix.ENOSPC):
		return true, fmt.Errorf("%w: raise the node's sysctl fs.inotify.max_user_watches", err)
	}
	return false, err
}
