package cniconf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/time/rate"
)

const (
	// settled is how long after a change a file is read: it may be written bit by bit.
	settled = 100 * time.Millisecond
	// lookAgain is for what no directory tells: that a pod has ended.
	lookAgain = 5 * time.Second
)

// Keep does what do does, such as [Node.Install], and again whenever the runtime's
// directories change, until ctx ends. It waits for what can't be done yet; its error is
// what can't be waited for.
func (n Node) Keep(ctx context.Context, do func(context.Context) (changed bool, err error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch directories of CNI: %w", err)
	}
	defer w.Close()
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch directory of CNI: %w", err)
		}
	}
	// Somebody else may have another opinion of the file, and as much endurance.
	often := rate.NewLimiter(rate.Every(10*time.Second), 5)
	last := ""
	for {
		changed, err := do(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && last != "done":
			n.Log.Info("plugin and CNI configuration are up to date", "binDir", n.BinDir, "confDir", n.ConfDir)
			last = "done"
		case err == nil:
		case !errors.Is(err, ErrNotChained) && !errors.Is(err, ErrInUse):
			return err
		case err.Error() != last:
			n.Log.Warn("waiting", "cause", err)
			last = err.Error()
		}
		if changed && !often.Allow() {
			n.Log.Warn("another program changes the CNI configuration back again and again; Cilium does unless it has cni.exclusive=false")
			if often.Wait(ctx) != nil {
				return nil
			}
		}
		if err := waitForChange(ctx, w, errors.Is(err, ErrInUse)); err != nil {
			return err
		}
	}
}

// waitForChange returns some time after files have changed, or if look says so after a
// while.
func waitForChange(ctx context.Context, w *fsnotify.Watcher, look bool) error {
	var due <-chan time.Time
	if look {
		due = time.After(lookAgain)
	}
	changed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			return nil
		case err := <-w.Errors: // there may have been too many events
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch directories of CNI: %w", err)
			}
		case <-w.Events:
		}
		if !changed {
			changed, due = true, time.After(settled)
		}
	}
}
