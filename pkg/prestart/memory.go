package prestart

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A guest with an infinite lease does not speak again, and the next server
// would never learn that it has its address. What the server knows is therefore
// kept in a file beside the record. It counts while the VM that it is about
// still has the tap open, and for the preparation of the pod that it was
// written in; it is never needed to serve.

func (h Hook) memoryPath(p prepare.Plan, suffix string) string {
	return filepath.Join(h.StateDir, p.Interface.Name+suffix)
}

// rememberAgain is how long after what the server knows could not be written, as on
// a full disk, it is tried again.
const rememberAgain = 5 * time.Second

// remember writes what the server knows, after each step of the lease, until
// events ends. A lease without an end may have just one.
func (h Hook) remember(p prepare.Plan, suffix string, server leaseServer, events <-chan lease.Event) {
	path := h.memoryPath(p, suffix)
	var again <-chan time.Time
	for {
		select {
		case _, more := <-events:
			if !more {
				return
			}
		case <-again:
		}
		b, err := json.MarshalIndent(server.Status(), "", "  ")
		if err == nil {
			err = renameio.WriteFile(path, append(b, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(path)))
		}
		switch {
		case err == nil && again != nil:
			h.Log.Info("the state of the lease is kept again", "interface", p.Interface.Name)
			again = nil
		case err != nil && again == nil:
			h.Log.Warn("can't keep the state of the lease: after a restart nobody knows of it until the guest speaks",
				"interface", p.Interface.Name, "error", err, "again", rememberAgain)
		}
		if err != nil {
			again = time.After(rememberAgain)
		}
	}
}

// recall makes the server know what the one before knew. One that knows nothing
// serves as well. unheard is whether a VM has the tap open of whose lease nothing is
// known.
func (h Hook) recall(p prepare.Plan, suffix string, server leaseServer) (unheard bool) {
	was, err := readMemory(h.memoryPath(p, suffix))
	inUse, useErr := tun.InUse(p.Tap.Name)
	if err := errors.Join(err, useErr); err != nil {
		h.Log.Warn("started without the state of the lease", "interface", p.Interface.Name, "error", err)
	}
	if inUse && err == nil && was.State == lease.Bound {
		server.Resume(was)
	}
	return inUse && server.Status().State != lease.Bound
}

// maxMemory bounds what a server knew: it keeps some fields, and cuts what is long.
const maxMemory = 64 << 10

// readMemory reads what a server knew; nothing if there is no file.
func readMemory(path string) (was lease.Status, err error) {
	b, err := statedir.ReadFile(path, maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return was, nil
	}
	if err != nil {
		return was, fmt.Errorf("read state of the lease: %w", err)
	}
	if err := statedir.Unmarshal(b, &was); err != nil {
		return lease.Status{}, fmt.Errorf("read state of the lease from %s: %w", path, err)
	}
	return was, nil
}

// memoryFile matches what is kept of an interface, and what a process that was
// killed left of writing it (renameio puts a dot before, and a number behind).
var memoryFile = regexp.MustCompile(`^(?:(.+)\.lease6?|\.(.+)\.lease6?[0-9]+)$`)

// forget removes what was kept of preparations that are no more: there is no
// record of them.
func forget(store *prepare.Store) error {
	kept, err := store.Kept()
	if err != nil {
		return err
	}
	dir := store.Dir()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list states of leases: %w", err)
	}
	for _, e := range entries {
		match := memoryFile.FindStringSubmatch(e.Name())
		if match == nil || slices.Contains(kept, cmp.Or(match[1], match[2])) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove state of the lease: %w", err)
		}
	}
	return nil
}
