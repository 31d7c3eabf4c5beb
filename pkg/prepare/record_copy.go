package prepare

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// RecordCopy is the record of a prepared pod interface, to be written again should
// somebody delete or damage it: without it the pod can't be put back. It is for one goroutine.
type RecordCopy struct {
	path   string
	conn   *nl.Conn
	record record      // as it was last on disk
	info   fs.FileInfo // of its file then
}

// CopyRecord reads the record in dir of an interface that is prepared in the network
// namespace of the calling thread. Close the copy.
func CopyRecord(dir, name string) (*RecordCopy, error) {
	c := &RecordCopy{path: filepath.Join(dir, name+".json")}
	missing, err := c.read()
	if err == nil && missing {
		err = fmt.Errorf("record %s does not exist", c.path)
	}
	if err == nil {
		c.conn, err = nl.Open()
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// read reads the record anew if another process may have written it.
func (c *RecordCopy) read() (missing bool, err error) {
	info, err := os.Lstat(c.path)
	if err == nil && c.info != nil && os.SameFile(info, c.info) && info.ModTime().Equal(c.info.ModTime()) {
		return false, nil
	}
	r, err := readRecord(c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err == nil {
		c.record, c.info = r, info
	}
	return false, err
}

// lost tells whether there is no record any more, or one that is damaged.
func (c *RecordCopy) lost() (lost, damaged bool, err error) {
	missing, err := c.read()
	var newer *newerError
	if damage := (*damagedError)(nil); errors.As(err, &damage) && !errors.As(err, &newer) {
		return true, true, nil
	}
	return missing, false, err
}

// Repair writes the record again if somebody has deleted or damaged it, and tells its path then.
// One of an interface that is not prepared any more was deleted by restore. It waits
// until nobody else is at work in the directory, or ctx ends.
func (c *RecordCopy) Repair(ctx context.Context) (written string, err error) {
	if lost, _, err := c.lost(); !lost {
		return "", err
	}
	dir, err := statedir.Lock(ctx, filepath.Dir(c.path))
	if err != nil {
		return "", err
	}
	defer dir.Close()
	lost, damaged, err := c.lost()
	if !lost {
		return "", err
	}
	links, err := c.conn.Links()
	if err != nil || !c.record.Plan.hasLinks(&engine.State{Links: links}) {
		return "", err
	}
	if damaged {
		if _, err := setAside(c.path, ".damaged"); err != nil {
			return "", err
		}
	}
	return c.path, (&Store{dir: dir}).save(c.record)
}

// Close closes the copy.
func (c *RecordCopy) Close() { c.conn.Close() }
