package prepare

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// A record is decoded when somebody has written it, not each time that something else
// changes in its directory; one that is deleted is written as it was last.
func TestRecordCopyReadsWhatChanged(t *testing.T) {
	pod := podtest.NewPod(t, podtest.Flannel)
	dir := t.TempDir()
	path := filepath.Join(dir, "eth0.json")
	var c *RecordCopy
	pod.In(t, func() error {
		_, err := ApplyOne(t.Context(), dir, Options{}, "eth0")
		if err == nil {
			c, err = CopyRecord(dir, "eth0")
		}
		return err
	})
	defer c.Close()
	repair := func() (written string) {
		written, err := c.Repair(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return written
	}
	if allocations := testing.AllocsPerRun(3, func() { repair() }); allocations > 20 {
		t.Errorf("%.0f allocations for a record that is as it was", allocations)
	}
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := regexp.MustCompile(`("order": *)\d+`).ReplaceAll(was, []byte("${1}7"))
	if err := os.WriteFile(path, changed, 0o600); err != nil { // in place
		t.Fatal(err)
	}
	if written := repair(); written != "" {
		t.Errorf("%s is written though it is there", written)
	}
	for name, spoil := range map[string]func() error{
		"deleted":   func() error { return os.Remove(path) },
		"emptied":   func() error { return os.Truncate(path, 0) },
		"cut short": func() error { return os.Truncate(path, int64(len(was)/2)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if repair() != path {
			t.Errorf("a record that is %s is not written", name)
		}
		if r, err := readRecord(path); err != nil || r.Order != 7 {
			t.Errorf("%s: written is %+v, %v, not what was last there", name, r, err)
		}
	}
	if err := os.WriteFile(path, []byte(`{"version": 99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if written, err := c.Repair(t.Context()); err == nil || written != "" {
		t.Errorf("a newer program's record: written %q, %v", written, err)
	}
}
