package cniconf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// self is the binary that is installed: the running program's, also after an upgrade has
// replaced it.
const self = "/proc/self/exe"

// installBinary copies the running program to where the runtime looks for plugins, unless
// it is there.
func (n Node) installBinary() (changed bool, err error) {
	same, err := n.sameBinary()
	if err != nil || same {
		return false, err
	}
	from, err := os.Open(self)
	if err != nil {
		return false, err
	}
	defer from.Close()
	temporary, err := writeBeside(n.binary(), 0o755, from)
	if err != nil {
		return false, err
	}
	defer os.Remove(temporary)
	if err := os.Rename(temporary, n.binary()); err != nil {
		return false, err
	}
	n.Log.Info("installed plugin", "binary", n.binary())
	return true, nil
}

// sameBinary tells whether the plugin in place is the running program.
func (n Node) sameBinary() (bool, error) {
	there, err := os.Open(n.binary())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer there.Close()
	own, err := os.Open(self)
	if err != nil {
		return false, err
	}
	defer own.Close()
	thereInfo, err := there.Stat()
	if err != nil {
		return false, err
	}
	ownInfo, err := own.Stat()
	if err != nil || thereInfo.Mode() != 0o755 || thereInfo.Size() != ownInfo.Size() {
		return false, err
	}
	return sameBytes(there, own)
}

func sameBytes(a, b io.Reader) (bool, error) {
	x, y := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, err := io.ReadFull(a, x)
		m, otherErr := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err = errors.Join(err, otherErr); err != nil {
			return false, err
		}
	}
}

// temporaryName is that of a file that is yet to be renamed.
const temporaryName = "." + Type + ".new"

// writeBeside writes a file into the directory of path, by a name that the runtime does
// not look at: who replaces path by it does so at once. One that an installer left that
// was killed is overwritten.
func writeBeside(path string, mode fs.FileMode, from io.Reader) (temporary string, err error) {
	temporary = filepath.Join(filepath.Dir(path), temporaryName)
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return "", fmt.Errorf("write beside %s: %w", path, err)
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(temporary)
		return "", fmt.Errorf("write beside %s: %w", path, err)
	}
	return temporary, nil
}
