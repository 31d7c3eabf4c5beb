package statedir

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnfit means that something is not what this program writes.
var ErrUnfit = errors.New("can't be trusted")

// ReadFile reads a file of the state directory. It takes only a regular file of
// at most so many bytes that root, the user, or the owner of the directory has
// written; the error wraps [ErrUnfit] otherwise. It never blocks.
func ReadFile(path string, most int64) ([]byte, error) {
	f, err := openRegular(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	switch trusted, err := isTrusted(path, st.Uid); {
	case err != nil:
		return nil, err
	case !trusted:
		return nil, unfit(path, fmt.Sprintf("it belongs to user %d: run as that user, or make it yours (chown) if it is right", st.Uid))
	case st.Size > most:
		return nil, unfit(path, fmt.Sprintf("it has %d bytes, more than %d", st.Size, most))
	}
	b := bytes.NewBuffer(make([]byte, 0, st.Size+bytes.MinRead))
	_, err = b.ReadFrom(io.LimitReader(f, most))
	return b.Bytes(), err
}

// openRegular opens a regular file, and never blocks. The error wraps [ErrUnfit] if
// something else has the name.
func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0o600)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EISDIR) {
		return nil, unfit(path, "it is not a regular file")
	}
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, unfit(path, "it is not a regular file"))
	}
	return f, nil
}

// Unfinished is the name of the file that a process was writing when it was killed, of
// which it has left one of this name: renameio puts a dot before, and a number behind.
func Unfinished(name string) (of string, ok bool) {
	of, ok = strings.CutPrefix(strings.TrimRight(name, "0123456789"), ".")
	return of, ok && of != "" && of != name[1:]
}

// Remove removes those files of a state directory whose names are obsolete.
func Remove(dir string, obsolete func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list state directory: %w", err)
	}
	for _, e := range entries {
		if !obsolete(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear state directory: %w", err)
		}
	}
	return nil
}

// isTrusted tells whether what the user has put at path can be believed.
func isTrusted(path string, uid uint32) (bool, error) {
	if uid == 0 || uid == uint32(os.Geteuid()) {
		return true, nil
	}
	var dir unix.Stat_t
	if err := unix.Stat(filepath.Dir(path), &dir); err != nil {
		return false, &fs.PathError{Op: "stat", Path: filepath.Dir(path), Err: err}
	}
	return uid == dir.Uid, nil
}

func unfit(path, why string) error {
	return fmt.Errorf("%s %w: %s", path, ErrUnfit, why)
}
