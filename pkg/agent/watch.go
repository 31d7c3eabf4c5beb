package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// isGone tells whether the network namespace at path is certainly no more: its file is
// not there, but the directory of all is. Where that is missing, too, or is one that was
// deleted and is still mounted here, it may be that only this process does not see it.
func isGone(path string) bool {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err := os.ReadDir(filepath.Dir(path))
	return err == nil
}

// isGone tells whether the pod's network namespace is certainly no more: it is not at its
// path. A session keeps it from ending, so another one at that path has another inode. The
// caller has the agent's lock, or works on the pod.
func (p *pod) isGone() bool {
	if p.session == nil {
		return isGone(p.netns) // whose it is by now the records tell
	}
	there, err := p.session.Serves(p.netns)
	return err == nil && !there || isGone(p.netns)
}

// newWatcher makes a watcher, or has the directories looked at again and again.
func (a *Agent) newWatcher() (err error) {
	if a.watcher, err = fsnotify.NewWatcher(); err == nil {
		a.look.Stop()
		return nil
	}
	a.watcher = nil
	return a.canLook(err)
}

// canLook looks at directories again and again if that is the way out of an error of
// watching; else it returns the error.
func (a *Agent) canLook(err error) error {
	limited, why := statedir.WatchLimit(err)
	if !limited {
		return fmt.Errorf("watch directories: %w", err)
	}
	a.log.Warn("can't watch directories: looking at them again and again", "error", why, "every", lookAgain)
	a.look.Reset(lookAgain)
	return nil
}

// watchDir has it noticed what is removed from a directory.
func (a *Agent) watchDir(path string) error {
	if a.watcher == nil {
		return nil
	}
	if err := a.watcher.Add(path); err != nil {
		return a.canLook(err)
	}
	return nil
}

// watchFor has the end of the network namespace at path noticed.
func (a *Agent) watchFor(path string) error { return a.watchDir(filepath.Dir(path)) }

// watch lets go of pods whose network namespace is gone, until ctx ends, and calls
// unreachable when the agent's socket is gone.
func (a *Agent) watch(ctx context.Context, unreachable func()) {
	var events <-chan fsnotify.Event
	var failed <-chan error
	if a.watcher != nil {
		events, failed = a.watcher.Events, a.watcher.Errors
	}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			if !event.Has(fsnotify.Remove) && !event.Has(fsnotify.Rename) {
				continue
			}
			if event.Name == a.socket() || event.Name == filepath.Clean(a.stateDir) {
				unreachable()
				return
			}
			a.forgetGone(ctx, event.Name)
			a.missFiles(event.Name)
			continue
		case err := <-failed: // events were lost
			a.log.Debug("can't tell what is gone: looking at all", "error", err)
		case <-a.look.C:
		}
		if there, err := os.Lstat(a.socket()); err != nil || !os.SameFile(there, a.mine) {
			unreachable()
			return
		}
		a.forgetGone(ctx, "")
		a.missFiles("")
	}
}

// missFiles tells once of each NIC that is served and of which somebody has deleted a file:
// those of the container whose directory path is, or is in; of all if it is empty. The plugin
// deletes none before the NIC is let go of.
func (a *Agent) missFiles(path string) {
	var lines []func()
	a.mu.Lock()
	for id, p := range a.pods {
		if dir := attachment.Dir(a.stateDir, id); path != "" && path != dir && filepath.Dir(path) != dir {
			continue
		}
		for name, n := range p.nics {
			was := n.deleted
			n.deleted = ""
			for _, file := range attachment.Files(a.stateDir, id, name) {
				if _, err := os.Lstat(file); n.err == nil && errors.Is(err, fs.ErrNotExist) {
					n.deleted = file + " is deleted: the VM keeps its network and is served until this agent ends, but no other agent can serve it, nor DEL put its interface back: " + recreate
				}
			}
			if deleted := n.deleted; deleted != "" && was == "" {
				lines = append(lines, func() {
					a.logOf(n.Attachment).Error("a file of a NIC that is served is missing", "interface", name, "error", deleted)
				})
			}
		}
	}
	a.mu.Unlock()
	for _, line := range lines {
		line()
	}
}

// forgetGone forgets the pods whose network namespace, that at path or any, is gone. The
// directory of namespaces may have two names, as /run/netns and /var/run/netns; events
// come by one of them, whichever a pod's path has.
func (a *Agent) forgetGone(ctx context.Context, path string) {
	a.mu.Lock()
	var gone []*pod
	for _, p := range a.pods {
		if (path == "" || filepath.Base(p.netns) == filepath.Base(path)) && p.isGone() {
			gone = append(gone, p)
		}
	}
	a.mu.Unlock()
	for _, p := range gone {
		p.work.Lock()
		if p.isGone() { // a pod of the same container may be at another path by now
			a.forget(ctx, p)
		}
		p.work.Unlock()
	}
}

// forget lets go of a pod whose network namespace is gone, and removes what was kept of
// it. The pod is being worked on.
func (a *Agent) forget(ctx context.Context, p *pod) {
	a.remove(ctx, p)
	removed, err := attachment.RemoveGone(ctx, a.stateDir, p.id, isGone)
	switch {
	case err != nil:
		a.log.Warn("can't remove the state of a pod that is gone", "container", p.id, "error", err)
	case removed:
		a.log.Info("the pod is gone", "pod", p.name.String(), "container", p.id)
	default:
		a.log.Info("the pod's network namespace is gone", "pod", p.name.String(), "container", p.id, "netns", p.netns)
	}
}
