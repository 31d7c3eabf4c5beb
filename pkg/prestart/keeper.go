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

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

const (
	// settleTime is how long deletions are collected before something is made again:
	// who removes a directory removes what is in it one by one.
	settleTime = 100 * time.Millisecond
	// What could not be made again is tried again after firstRetry, then each time
	// after twice as long, up to lastRetry.
	firstRetry = time.Second
	lastRetry  = time.Minute
)

// keeper has an eye on what others need of a session in its state directory, the
// control socket and the record, and makes it again if somebody deletes it.
type keeper struct {
	dir     string
	control *control.Server
	records *prepare.RecordCopy
	watcher *fsnotify.Watcher // nil: there can be none
	log     *slog.Logger
	told    string // the last error that was logged

	mu  sync.Mutex
	err error // why the record is not on disk
}

// newKeeper looks at the records of the plans, in the current network namespace.
// One that can't look is told of, and no reason not to serve. Close it.
func (h Hook) newKeeper(c *control.Server, plans []prepare.Plan) *keeper {
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

// follow makes again what is deleted, until ctx ends. Where that fails it tries again
// later: nobody tells when there is a place for the directory again, or room in it.
func (k *keeper) follow(ctx context.Context) {
	if k.watcher == nil {
		return
	}
	for pause := firstRetry; ; {
		var again <-chan time.Time
		if k.repair(ctx) { // at first what was deleted before the watch began
			pause = firstRetry
		} else {
			again, pause = time.After(pause), min(2*pause, lastRetry)
		}
		if !k.wait(ctx, again) {
			return
		}
	}
}

// wait blocks until something has changed, or again comes. It returns false if ctx
// ends, or the watch.
func (k *keeper) wait(ctx context.Context, again <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-again:
			return true
		case err := <-k.watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				k.fail(err)
				return false
			}
		case event := <-k.watcher.Events:
			if !k.concerns(event) {
				continue
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(settleTime):
			return true
		}
	}
}

func (k *keeper) concerns(event fsnotify.Event) bool {
	name := filepath.Base(event.Name)
	return event.Name == k.dir || name == control.SocketName || k.records.Has(name)
}

// repair makes again what is not there, and reports whether all of it is there now.
func (k *keeper) repair(ctx context.Context) bool {
	err := os.MkdirAll(k.dir, 0o700)
	if err == nil {
		err = k.watcher.Add(k.dir)
	}
	if err != nil {
		err = fmt.Errorf("make state directory again: %w", err)
		k.setRecordError(err)
	} else {
		err = errors.Join(k.repairSocket(ctx), k.repairRecords(ctx))
	}
	if err == nil {
		k.told = ""
	} else if text := err.Error(); ctx.Err() == nil && text != k.told {
		k.log.Error("can't make again what was deleted of the state directory: trying again", "stateDir", k.dir, "error", err)
		k.told = text
	}
	return err == nil
}

func (k *keeper) repairSocket(ctx context.Context) error {
	if k.control.IsThere() {
		return nil
	}
	if err := k.control.Listen(ctx); err != nil {
		return err
	}
	k.log.Warn("somebody deleted the control socket: made it again", "socket", filepath.Join(k.dir, control.SocketName))
	return nil
}

func (k *keeper) repairRecords(ctx context.Context) error {
	written, err := k.records.Repair(ctx)
	for _, path := range written {
		k.log.Warn("somebody deleted the record of a prepared interface: wrote it again", "record", path)
	}
	k.setRecordError(err)
	return err
}

func (k *keeper) setRecordError(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
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
