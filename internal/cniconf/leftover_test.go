package cniconf

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// What an installer that was killed has left goes with the plugin.
func TestLeftOfKilledInstaller(t *testing.T) {
	t.Parallel()
	n := Node{BinDir: t.TempDir(), ConfDir: t.TempDir(), StateDir: t.TempDir(), Chain: true, Log: slog.New(slog.DiscardHandler)}
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		if err := os.WriteFile(filepath.Join(dir, ".virt-launcher-net.new"), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Uninstall(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s has %v, %v", dir, left, err)
		}
	}
}
