package prepare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
)

// RecordCopy has the records of some plans as they are on disk, so that they can be
// written again should somebody delete them: without its record a prepared pod can't
// be put back. It is for one goroutine.
type RecordCopy struct {
	dir   string
	conn  *nl.Conn
	plans map[string]Plan // by interface
	texts map[string][]byte
}

// CopyRecords reads the records in dir of the plans, which are applied in the
// network namespace of the calling thread. Close the copy.
func CopyRecords(dir string, plans ...Plan) (*RecordCopy, error) {
	conn, err := nl.Open()
	if err != nil {
		return nil, err
	}
	c := &RecordCopy{dir: dir, conn: conn, plans: map[string]Plan{}, texts: map[string][]byte{}}
	for _, p := range plans {
		c.plans[p.Interface.Name] = p
	}
	if _, err := c.update(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// update reads the records anew, since another process may have written them, and
// returns the interfaces that have none.
func (c *RecordCopy) update() (missing []string, err error) {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(c.plans)) {
		path := c.path(name)
		text, err := statedir.ReadFile(path, maxRecord)
		if err == nil {
			_, err = parseRecord(name, text)
		}
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, name)
		case err != nil:
			errs = append(errs, fmt.Errorf("read record %s: %w", path, err))
		default:
			c.texts[name] = bytes.Clone(text)
		}
	}
	return missing, errors.Join(errs...)
}

// Repair writes records again that were deleted, and returns their paths. It leaves
// out interfaces that are not prepared any more: restore deletes their records. It
// waits until nobody else is at work in the directory, or ctx ends.
func (c *RecordCopy) Repair(ctx context.Context) (written []string, err error) {
	if missing, err := c.update(); len(missing) == 0 {
		return nil, err
	}
	dir, err := statedir.Lock(ctx, c.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	missing, err := c.update()
	if err != nil {
		return nil, err
	}
	links, err := c.conn.Links()
	if err != nil {
		return nil, err
	}
	for _, name := range missing {
		if !c.plans[name].hasLinks(&engine.State{Links: links}) {
			delete(c.plans, name)
			continue
		}
		text, known := c.texts[name]
		if !known {
			return written, fmt.Errorf("record %s is missing, and its content is not known", c.path(name))
		}
		if err := renameio.WriteFile(c.path(name), text, 0o600, renameio.WithTempDir(c.dir)); err != nil {
			return written, fmt.Errorf("write record: %w", err)
		}
		written = append(written, c.path(name))
	}
	if len(written) == 0 {
		return nil, nil
	}
	return written, syncDir(c.dir)
}

// Has tells whether a file of that name is one of the records.
func (c *RecordCopy) Has(name string) bool {
	_, has := c.plans[strings.TrimSuffix(name, ".json")]
	return has && strings.HasSuffix(name, ".json")
}

// Close closes the copy.
func (c *RecordCopy) Close() { c.conn.Close() }

func (c *RecordCopy) path(name string) string { return filepath.Join(c.dir, name+".json") }
