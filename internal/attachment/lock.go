package attachment

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// Lock waits until nobody else has the directory of a container locked, which is made if
// create says so, or until ctx ends: who has it locked attaches and detaches. The lock is of
// the directory itself, so it takes no room on a disk that is full, and it ends with the
// process. Close it. The error wraps [fs.ErrNotExist] if there is no directory, and
// [unix.ENOTDIR] if something else has its name.
func Lock(ctx context.Context, base, containerID string, create bool) (*os.File, error) {
	dir := Dir(base, containerID)
	for {
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() {
			return nil, fmt.Errorf("open state directory: %s: %w: remove it", dir, unix.ENOTDIR)
		}
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

// RemoveGone removes the directory of a container whose network namespaces are all gone, as
// far as gone knows. Of one that has an attachment in another one, too, as where a pod's
// sandbox was made anew, it removes those attachments alone that are gone. It does nothing
// while a call of the plugin has the directory locked, which is about to remove it, or
// attaches to it.
func RemoveGone(ctx context.Context, base, containerID string, gone func(netns string) bool) (removed bool, err error) {
	now, cancel := context.WithCancel(context.WithoutCancel(ctx))
	cancel()
	locked, err := Lock(now, base, containerID, false)
	switch {
	case errors.Is(err, context.Canceled):
		return false, nil
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	}
	defer locked.Close()
	var left []Attachment
	all, _ := OfContainer(base, containerID) // of what can't be read the rest tells
	pending, _ := PendingOfContainer(base, containerID)
	for _, a := range slices.Concat(all, pending) {
		if !gone(a.Netns) {
			left = append(left, a)
		}
	}
	if len(left) == 0 {
		if err := os.RemoveAll(Dir(base, containerID)); err != nil {
			return false, fmt.Errorf("remove the state of a container: %w", err)
		}
		return true, nil
	}
	for _, a := range all {
		if gone(a.Netns) {
			err = errors.Join(err, Remove(base, containerID, a.Interface))
		}
	}
	return false, err
}
