package statedir

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Whose records are where says which directory a namespace has.
func TestFind(t *testing.T) {
	us := Namespace{BootID: "now", Cookie: 7, Inode: 4026530001}
	another := Namespace{BootID: "now", Cookie: 8, Inode: 4026530002}
	const own = "netns-4026530001"
	for _, c := range []struct {
		name   string
		files  map[string]any
		apart  bool
		inside string // of base; empty: base itself
	}{
		{"empty", nil, false, ""},
		{"empty, apart", nil, true, own},
		{"ours, of a program before", map[string]any{"eth0.json": us}, true, ""},
		{"ours and another's", map[string]any{"eth0.json": us, "net1.json": another}, true, ""},
		{"another's, which may live", map[string]any{"eth0.json": another}, false, own},
		{"own is there", map[string]any{own + "/eth0.json": us}, false, own},
		{"before the last boot", map[string]any{"eth0.json": Namespace{BootID: "before", Inode: another.Inode}}, false, ""},
		{"our inode's former owner", map[string]any{"eth0.json": Namespace{BootID: "now", Cookie: 6, Inode: us.Inode}}, false, ""},
		{"damaged", map[string]any{"eth0.json": "x", "net1.json": nil}, false, ""},
		{"damaged, apart", map[string]any{"eth0.json": "x"}, true, own},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := t.TempDir()
			for name, of := range c.files {
				b, err := json.Marshal(map[string]any{"namespace": of})
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(base, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, ns := range []Namespace{us, {BootID: us.BootID, Inode: us.Inode}} { // from within, from outside
				if got, err := Find(base, ns, c.apart); err != nil || got != filepath.Join(base, c.inside) {
					t.Errorf("got %s, %v, want %q of %s", got, err, c.inside, base)
				}
			}
		})
	}
	base := t.TempDir()
	if err := os.Symlink("/tmp", filepath.Join(base, own)); err != nil {
		t.Fatal(err)
	}
	if got, err := Find(base, us, false); err == nil {
		t.Errorf("a link leads to %s", got)
	}
}

// A namespace is certainly gone only if its node was started anew, or its inode is
// another's.
func TestGone(t *testing.T) {
	now := Namespace{BootID: "now", Cookie: 7, Inode: 1}
	for n, want := range map[Namespace]bool{
		{BootID: "now", Cookie: 7, Inode: 1}:    false,
		{BootID: "now", Cookie: 8, Inode: 2}:    false,
		{BootID: "now", Cookie: 8, Inode: 1}:    true,
		{BootID: "before", Cookie: 7, Inode: 1}: true,
		{BootID: "now", Inode: 1}:               false,
	} {
		if n.Gone(now) != want {
			t.Errorf("%+v: gone is %v", n, !want)
		}
	}
}
