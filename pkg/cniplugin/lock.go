package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// lock makes the directory of a container, if create says so, and waits until no other call
// has it locked, or ctx ends. The lock is of the directory itself, so it takes no room on
// a disk that is full, and it ends with the process. Close it. The error wraps
// [fs.ErrNotExist] if there is no directory and none is made.
func lock(ctx context.Context, dir string, create bool) (*os.File, error) {
	for {
		if create {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return nil, &statedir.UnusableError{Doing: "make state directory", Err: err}
			}
		}
		f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) && create {
			continue // a call that had it locked has removed it just now
		}
		if err != nil {
			return nil, fmt.Errorf("open state directory: %w", err)
		}
		err = statedir.Flock(ctx, f)
		if err == nil {
			there, statErr := os.Lstat(dir)
			info, infoErr := f.Stat()
			if statErr == nil && infoErr == nil && os.SameFile(there, info) {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("lock state directory %s: %w", dir, err)
		}
	}
}
