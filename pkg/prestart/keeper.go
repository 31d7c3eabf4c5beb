package prestart

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/time/rate"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
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

// keeper makes again what others need of a session in its state directory, the
// control socket and the records, if somebody deletes it, or damages a record. Nil keeps nothing.
type keeper struct {
	dir     string
	control *control.Server
	watcher *fsnotify.Watcher // nil: there can be none
	log     *slog.Logger
	logged  string        // the last error
	lines   *rate.Limiter // of what is logged of deletions

	mu      sync.Mutex // is held while others are at work in the directory
	records map[*nic]*prepare.RecordCopy
	err     atomic.Pointer[error] // why a record is not on disk; to nil: all are
}

// newKeeper watches the state directory. One that can't is no reason not to serve.
// Close it.
func (h Hook) newKeeper(c *control.Server) *keeper {
	k := &keeper{
		dir: h.StateDir, control: c, log: h.Log, lines: rate.NewLimiter(rate.Every(reportPause), reportsAtOnce),
		records: map[*nic]*prepare.RecordCopy{},
	}
	k.err.Store(new(error))
	var err error
	if k.watcher, err = fsnotify.NewWatcher(); err == nil {
		err = k.watch()
	}
	if err != nil {
		_, why := statedir.WatchLimit(err)
		k.warn(why)
	}
	return k
}

// watch makes the state directory, if there is none, and watches it.
func (k *keeper) watch() error {
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		return err
	}
	return k.watcher.Add(k.dir)
}

func (k *keeper) warn(err error) {
	k.log.Warn("can't watch the state directory: a deleted record or control socket is not written again", "stateDir", k.dir, "error", err)
}

// add has the record of a NIC kept, in the current network namespace.
func (k *keeper) add(n *nic) {
	if k == nil || n.plan.Load() == nil {
		return
	}
	record, err := prepare.CopyRecord(k.dir, n.Interface)
	if err != nil {
		k.warn(err)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records[n] = record
}

// remove ends that.
func (k *keeper) remove(n *nic) {
	if k == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if record := k.records[n]; record != nil {
		record.Close()
		delete(k.records, n)
	}
}

// follow makes again what is deleted, until ctx ends. Where that fails it tries again
// later: nobody tells when there is a place for the directory again, or room in it.
func (k *keeper) follow(ctx context.Context) {
	if k == nil || k.watcher == nil {
		return
	}
	due, settling := time.After(0), true // at first for what was deleted before the watch began
	settle := func() {
		if !settling {
			due, settling = time.After(settleTime), true
		}
	}
	for pause := firstRetry; ; {
		select {
		case <-ctx.Done():
			return
		case err := <-k.watcher.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				k.warn(err)
				return
			}
			settle()
		case event := <-k.watcher.Events:
			if !strings.HasPrefix(filepath.Base(event.Name), ".") { // a file that is being written, perhaps here
				settle()
			}
		case <-due:
			due, settling = nil, false
			if k.repair(ctx) {
				pause = firstRetry
			} else {
				due, pause = time.After(pause), min(2*pause, lastRetry)
			}
		}
	}
}

// repair makes again what is not there, and reports whether all of it is there now.
func (k *keeper) repair(ctx context.Context) bool {
	err := k.watch()
	if err == nil {
		err = errors.Join(k.repairSocket(ctx), k.repairRecords(ctx))
	} else {
		err = fmt.Errorf("make state directory again: %w", err)
		k.err.Store(&err)
	}
	text := textOf(err)
	if err != nil && text != k.logged && ctx.Err() == nil {
		k.log.Error("can't write again what was deleted or damaged in the state directory: trying again", "stateDir", k.dir, "error", err)
	}
	k.logged = text
	return err == nil
}

// restorable writes the record of a NIC again if it was deleted: once the NIC is
// removed, nobody knows what was in it.
func (k *keeper) restorable(ctx context.Context, n *nic) error {
	if k == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	record := k.records[n]
	if record == nil {
		return nil
	}
	_, err := record.Repair(ctx)
	return err
}

func (k *keeper) repairSocket(ctx context.Context) error {
	if k.control.IsThere() {
		return nil
	}
	if err := k.control.Listen(ctx); err != nil {
		return err
	}
	k.logDeletion(ctx, filepath.Join(k.dir, control.SocketName))
	return nil
}

func (k *keeper) repairRecords(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	for n, record := range k.records {
		written, err := record.Repair(ctx)
		if written != "" {
			err = errors.Join(err, n.hook.remember(n.Interface, n.options))
			k.logDeletion(ctx, written)
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	k.err.Store(&err)
	return err
}

// logDeletion logs what was made again, and not at each time if that goes on and on.
func (k *keeper) logDeletion(ctx context.Context, path string) {
	level := slog.LevelWarn
	if !k.lines.Allow() {
		level = slog.LevelDebug
	}
	k.log.Log(ctx, level, "a file of the state directory was deleted or damaged: made it again", "path", path)
}

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// recordError says why a record is not on disk; empty: all are. It waits for nobody.
func (k *keeper) recordError() string {
	if k == nil {
		return ""
	}
	return textOf(*k.err.Load())
}

func (k *keeper) close() {
	if k == nil {
		return
	}
	for _, record := range k.records {
		record.Close()
	}
	if k.watcher != nil {
		_ = k.watcher.Close()
	}
}
