package prepare

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
)

// unfinished matches what a process that was killed left of writing a record
// (renameio puts a dot before the record's name, and a number behind it).
var unfinished = regexp.MustCompile(`^\..+\.json[0-9]+$`)

// sweep removes what killed processes left. Who writes records holds the store,
// so none is being written.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.Dir())
	if err != nil {
		return fmt.Errorf("list state directory: %w", err)
	}
	for _, e := range entries {
		if !unfinished.MatchString(e.Name()) {
			continue
		}
		if err := os.Remove(filepath.Join(s.Dir(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove unfinished record: %w", err)
		}
	}
	return nil
}
