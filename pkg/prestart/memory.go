package prestart

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A guest with an infinite lease does not speak again, and the next server
// would never learn that it has its address. What the server knows is therefore
// kept in a file beside the record. It counts for the preparation of the pod that
// it was written in, also while no VM has the tap open: one may be resumed. It is
// never needed to serve.

// memory is such a file of a NIC's server.
type memory struct {
	nic    *nic
	server lease.Server
	path   string
}

// memories are those of the servers of a NIC.
func (n *nic) memories() (all []memory) {
	for suffix, server := range map[string]lease.Server{".lease": n.lease, ".lease6": n.lease6} {
		if server != nil {
			all = append(all, memory{n, server, filepath.Join(n.hook.StateDir, n.Interface+suffix)})
		}
	}
	return all
}

// writeAgain is how long after what the server knows could not be written, as on
// a full disk, it is tried again.
const writeAgain = 5 * time.Second

// follow writes what the server knows, after each step of the lease or several that
// follow each other at once, until events ends. A lease without an end may have just one.
func (m memory) follow(events <-chan lease.Event) {
	log := m.nic.hook.Log.With("interface", m.nic.Interface)
	var again <-chan time.Time
	for {
		select {
		case _, more := <-events:
			if !more {
				return
			}
			for len(events) > 0 { // an offer and what has come of it are told together
				<-events
			}
		case <-again:
		}
		b, err := json.MarshalIndent(m.server.Status(), "", "  ")
		if err == nil {
			err = renameio.WriteFile(m.path, append(b, '\n'), 0o600, renameio.WithTempDir(filepath.Dir(m.path)))
		}
		switch {
		case err == nil && again != nil:
			log.Info("the lease is saved again")
			again = nil
		case err != nil && again == nil:
			log.Warn("can't save the lease: after a restart it is unknown until the guest renews it", "error", err, "again", writeAgain)
		}
		if err != nil {
			again = time.After(writeAgain)
		}
	}
}

// resume makes the server know what the one before knew. One that knows nothing
// serves as well. unknown is whether a VM has the tap open of whose lease nothing is
// known.
func (m memory) resume() (unknown bool) {
	was, err := readMemory(m.path)
	inUse, useErr := tun.InUse(m.nic.Tap)
	if err := errors.Join(err, useErr); err != nil {
		m.nic.hook.Log.Warn("started without the saved lease", "interface", m.nic.Interface, "error", err)
	}
	m.server.Resume(was)
	status := m.server.Status()
	return inUse && status.State != lease.Bound && status.LastEvent.Type == ""
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
		return was, fmt.Errorf("read saved lease: %w", err)
	}
	if err := statedir.Unmarshal(b, &was); err != nil {
		return lease.Status{}, fmt.Errorf("read saved lease from %s: %w", path, err)
	}
	return was, nil
}

// interfaceOf is the interface of which a file is kept beside its record, or is what a
// process that was killed left of writing that; not ok if it is another file.
func interfaceOf(file string) (name string, ok bool) {
	for _, suffix := range []string{".lease", ".lease6", ".plugged"} {
		if name, ok = strings.CutSuffix(file, suffix); ok && name != "" {
			return name, true
		}
	}
	if of, ok := statedir.Unfinished(file); ok {
		return interfaceOf(of)
	}
	return "", false
}

// removeMemories removes what was kept of preparations that are no more: there is no
// record of them.
func removeMemories(store *prepare.Store) error {
	kept, err := store.Kept()
	if err != nil {
		return err
	}
	return statedir.Remove(store.Dir(), func(file string) bool {
		name, ok := interfaceOf(file)
		return ok && !slices.Contains(kept, name)
	})
}
