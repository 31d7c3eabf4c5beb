package statedir

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NoWatch tells whether err is that the kernel lets this process watch no more directories,
// and then adds the way out (inotify(7)).
func NoWatch(err error) (error, bool) {
	switch {
	case errors.Is(err, unix.EMFILE): // also the process's own limit, which nobody has as low
		return fmt.Errorf("%w: raise the node's sysctl fs.inotify.max_user_instances", err), true
	case errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("%w: raise the node's sysctl fs.inotify.max_user_watches", err), true
	}
	return err, false
}
