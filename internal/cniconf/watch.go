package cniconf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/time/rate"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

const (
	// settled is how long after a change a file is read: it may be written bit by bit.
	settled = 100 * time.Millisecond
	// lookAgain is for what no directory tells: that a pod has ended, that what a link leads
	// to is there, or anything at all where none can be watched.
	lookAgain = 5 * time.Second
)

// Keep does what do does, such as [Node.Install], and again whenever the runtime's
// directories change, until ctx ends. It waits for what can't be done yet; its error is
// what can't be waited for, as where a directory is made anew: whoever runs it is to start
// it again.
func (n Node) Keep(ctx context.Context, do func(context.Context) (changed bool, err error)) error {
	opened, err := n.open()
	if err != nil {
		return err
	}
	defer closeAll(opened)
	w, err := n.watch()
	if err != nil {
		return err
	}
	if w != nil {
		defer w.Close()
	}
	// Somebody else may have another opinion of the file, and as much endurance.
	often := rate.NewLimiter(rate.Every(10*time.Second), 5)
	last := ""
	for {
		changed, err := do(ctx)
		replaced := isReplaced(opened)
		switch {
		case ctx.Err() != nil:
			return nil
		case replaced != nil:
			return replaced
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
		if err := waitForChange(ctx, w, w == nil || errors.Is(err, ErrInUse) || errors.Is(err, ErrNotChained)); err != nil {
			return err
		}
	}
}

// open opens the directories of the runtime: while they are open nothing else has their
// inodes.
func (n Node) open() (opened []*os.File, err error) {
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		f, err := os.Open(dir)
		if err != nil {
			closeAll(opened)
			return nil, fmt.Errorf("watch directories of CNI: %w: %w", err, ErrNoDirectory)
		}
		opened = append(opened, f)
	}
	return opened, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// isReplaced tells whether somebody has deleted one of the directories that were opened, or
// has put another one in its place: of that one nothing is heard, and a container that has
// the old one mounted does not see it.
func isReplaced(opened []*os.File) error {
	for _, f := range opened {
		was, err := f.Stat()
		var now os.FileInfo
		if err == nil {
			now, err = os.Stat(f.Name())
		}
		if err == nil {
			_, err = os.ReadDir(f.Name()) // of one that is deleted, and mounted here, nothing else tells
		}
		if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(was, now) {
			return fmt.Errorf("somebody has removed the directory %s, or put another one in its place: start this again, so that it finds that one", f.Name())
		}
	}
	return nil
}

// watch watches the directories. Nil: the kernel lets this process watch no more of them.
func (n Node) watch() (*fsnotify.Watcher, error) {
	w, err := fsnotify.NewWatcher()
	for _, dir := range []string{n.BinDir, n.ConfDir} {
		if err == nil {
			err = w.Add(dir)
		}
	}
	if err == nil {
		return w, nil
	}
	if w != nil {
		_ = w.Close()
	}
	limited, why := statedir.WatchLimit(err)
	if !limited {
		return nil, fmt.Errorf("watch directories of CNI: %w", err)
	}
	n.Log.Warn("can't watch the directories of CNI: looking at them again and again", "error", why, "every", lookAgain)
	return nil, nil
}

// waitForChange returns some time after files have changed, or if look says so after a
// while. Of no watcher nothing is heard.
func waitForChange(ctx context.Context, w *fsnotify.Watcher, look bool) error {
	var due <-chan time.Time
	if look {
		due = time.After(lookAgain)
	}
	var events <-chan fsnotify.Event
	var failed <-chan error
	if w != nil {
		events, failed = w.Events, w.Errors
	}
	changed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-due:
			return nil
		case err := <-failed: // there may have been too many events
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("watch directories of CNI: %w", err)
			}
		case <-events:
		}
		if !changed {
			changed, due = true, time.After(settled)
		}
	}
}
