package prestart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A guest with an infinite lease does not speak again, and the next server
// would never learn that it has its address. What the server knows is therefore
// kept in a file beside the record. It counts while the VM that it is about
// still has the tap open, and for the preparation of the pod that it was
// written in; it is never needed to serve.

func memoryPath(dir, name string) string { return filepath.Join(dir, name+".lease") }

// remember writes what the server knows, after each step of the lease, until
// events ends.
func remember(log *slog.Logger, path string, server *dhcp.Server, events <-chan dhcp.Event) {
	for range events {
		b, err := json.MarshalIndent(server.Status(), "", "  ")
		if err == nil {
			err = renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(path)))
		}
		if err != nil {
			log.Warn("can't keep the state of the lease: after a restart nobody knows of it until the guest speaks", "error", err)
		}
	}
}

// recall makes the server know what the one before knew. It reports why it
// can't; a server that knows nothing serves as well.
func recall(path string, server *dhcp.Server, p prepare.Plan) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read state of the lease: %w", err)
	}
	var was dhcp.Status
	if err := json.Unmarshal(b, &was); err != nil {
		return fmt.Errorf("read state of the lease from %s: %w", path, err)
	}
	inUse, err := p.InUse()
	if err != nil {
		return err
	}
	if inUse {
		server.Resume(was)
	}
	return nil
}

// forget removes what was kept of a preparation that is no more.
func forget(dir string) error {
	paths, err := filepath.Glob(memoryPath(dir, "*"))
	if err != nil {
		return fmt.Errorf("list states of leases: %w", err)
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove state of the lease: %w", err)
		}
	}
	return nil
}
