package prestart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// settleTime is how long deletions are collected before something is made again:
// who removes a directory removes what is in it one by one.
const settleTime = 100 * time.Millisecond

// keeper has an eye on what others need of a session in its state directory, the
// control socket and the record, and makes it again if somebody deletes it.
type keeper struct {
	dir     string
	control *control
	records *prepare.RecordCopy
	watcher *fsnotify.Watcher // nil: there can be none
	log     *slog.Logger

	mu  sync.Mutex
	err error // why the record is not on disk
}

// newKeeper looks at the records of the plans, in the current network namespace.
// One that can't look is told of, and no reason not to serve. Close it.
func (h Hook) newKeeper(c *control, plans []prepare.Plan) *keeper {
	k := &keeper{dir: h.StateDir, control: c, log: h.Log}
	var err error
	if k.records, err = prepare.CopyRecords(k.dir, plans...); err == nil {
		if k.watcher, err = fsnotify.NewWatcher(); err == nil {
			err = k.watcher.Add(k.dir)
		}
	}
	if err != nil {
		k.fail(err)
	}
	return k
}

func (k *keeper) fail(err error) {
	k.log.Warn("can't watch the state directory: a record or a control socket that is deleted is not made again", "stateDir", k.dir, "error", err)
	k.close()
	k.records, k.watcher = nil, nil
}

// follow makes again what is deleted, until ctx ends.
func (k *keeper) follow(ctx context.Context) {
	if k.watcher == nil {
		return
	}
	k.repair(ctx) // what was deleted before the watch began
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-k.watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				k.fail(err)
				return
			}
		case event := <-k.watcher.Events:
			if !k.concerns(event) {
				continue
			}
		}
		settled := time.NewTimer(settleTime)
		select {
		case <-ctx.Done():
			settled.Stop()
			return
		case <-settled.C:
		}
		k.repair(ctx)
	}
}

func (k *keeper) concerns(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	return event.Name == k.dir || name == controlSocket || k.records.Has(name)
}

// repair makes again what is not there.
func (k *keeper) repair(ctx context.Context) {
	err := os.MkdirAll(k.dir, 0o700)
	if err == nil {
		err = k.watcher.Add(k.dir)
	}
	if err != nil {
		err = fmt.Errorf("make state directory again: %w", err)
	} else {
		err = errors.Join(k.repairSocket(ctx), k.repairRecords(ctx))
	}
	if ctx.Err() == nil && err != nil {
		k.log.Error("can't make again what was deleted of the state directory", "stateDir", k.dir, "error", err)
	}
}

func (k *keeper) repairSocket(ctx context.Context) error {
	if k.control.isThere() {
		return nil
	}
	if err := k.control.listen(ctx); err != nil {
		return err
	}
	k.log.Warn("somebody deleted the control socket: made it again", "socket", filepath.Join(k.dir, controlSocket))
	return nil
}

func (k *keeper) repairRecords(ctx context.Context) error {
	written, err := k.records.Repair(ctx)
	for _, path := range written {
		k.log.Warn("somebody deleted the record of a prepared interface: wrote it again", "record", path)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	return err
}

// recordError says why the record is not on disk; empty: it is.
func (k *keeper) recordError() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		return ""
	}
	return k.err.Error()
}

func (k *keeper) close() {
	if k.records != nil {
		k.records.Close()
	}
	if k.watcher != nil {
		_ = k.watcher.Close()
	}
}
