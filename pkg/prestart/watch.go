package prestart

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// lasting is how long a difference that nobody told of has to be there to be
// logged: who asks may see a prepare half way.
const lasting = time.Second

// longWork is how long somebody may be at work on the pod before what differs meanwhile is
// told: a process that is stopped never ends.
const longWork = 10 * time.Second

// watch keeps how the pod differs from the plan of a NIC.
type watch struct {
	pod     *prepare.Watch
	plan    *atomic.Pointer[prepare.Plan] // the NIC's
	dir     string                        // of the records
	remedy  string                        // the Hook's
	log     *slog.Logger
	changed func() // is called when what differs has changed; it must not look

	portsChanged func() // is called when the pod shares other ports

	repairer *repairer     // nil: nothing is repaired
	again    chan struct{} // is told that others are at work on the pod
	running  sync.WaitGroup

	mu       sync.Mutex
	found    []prepare.Difference
	since    time.Time // when it changed
	busy     time.Time // since when another is at work on the pod; zero: nobody is
	written  time.Time // when the record was written by then
	reported report
	closed   bool
}

// openWatch opens a watch of the current network namespace, whose follow looks first. Close
// it.
func (n *nic) openWatch(changed, portsChanged func()) (*watch, error) {
	pod, err := prepare.OpenWatch(*n.plan.Load())
	if err != nil {
		return nil, err
	}
	return &watch{pod: pod, plan: &n.plan, dir: n.hook.StateDir, remedy: n.hook.Remedy, repairer: n.repairer, reported: newReport(), again: make(chan struct{}, 1), log: n.hook.Log.With("interface", n.Interface), changed: changed, portsChanged: portsChanged}, nil
}

// look returns what differs now, and logs it: at once if it was told of a change. On
// error, and once the watch is closed, it is what was seen last.
func (w *watch) look(told bool) ([]prepare.Difference, error) {
	found, lines, err := w.compare(told)
	for _, line := range lines { // without the lock: who writes them may look
		line()
	}
	return found, err
}

// compare is look, whose lines of the log are yet to be written.
func (w *watch) compare(told bool) (_ []prepare.Difference, lines []func(), _ error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return w.found, nil, nil
	}
	found, err := w.pod.Look()
	if err == nil && len(found) > 0 {
		found, lines, err = w.lookWhileIdle(found)
	} else {
		w.busy = time.Time{}
	}
	w.advise(found)
	if err == nil && !slices.Equal(found, w.found) {
		w.found, w.since = found, time.Now()
		w.changed()
	}
	if told || time.Since(w.since) > lasting { // what has no events, such as a sysctl
		lines = append(lines, w.report()...)
	}
	return w.found, lines, err
}

// lookWhileIdle looks again while nobody prepares the pod, and takes over the ports by which
// it is prepared now. Who prepares writes the record and changes the tables one after the
// other, so while somebody does, of the tables what was seen before counts. The lock is held.
func (w *watch) lookWhileIdle(found []prepare.Difference) (_ []prepare.Difference, lines []func(), err error) {
	dir, err := statedir.TryLock(w.dir)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if written := w.recordWritten(); w.busy.IsZero() || !written.Equal(w.written) { // one after the other may be
			w.busy, w.written = time.Now(), written
		}
		select {
		case w.again <- struct{}{}:
		default: // it is known
		}
		if time.Since(w.busy) < longWork {
			isTable := w.plan.Load().IsTable
			found = slices.DeleteFunc(found, isTable)
			for _, d := range w.found {
				if isTable(d) {
					found = append(found, d)
				}
			}
		}
		return found, nil, nil
	}
	if err == nil { // else there is no directory any more, so nobody prepares
		defer dir.Close()
	}
	w.busy = time.Time{}
	if line := w.otherPorts(); line != nil {
		lines = append(lines, line)
	}
	found, err = w.pod.Look()
	return found, lines, err
}

// recordWritten is when the NIC's record was written; zero: it can't be told.
func (w *watch) recordWritten() time.Time {
	info, err := os.Stat(filepath.Join(w.dir, w.plan.Load().Interface.Name+".json"))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// waitIdle waits until somebody who was at work on the pod, when that was looked at, has
// ended, or takes too long.
func (w *watch) waitIdle(ctx context.Context) error {
	select {
	case <-w.again:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	waiting, cancel := context.WithTimeout(ctx, longWork)
	defer cancel()
	if dir, err := statedir.LockExisting(waiting, w.dir); err == nil {
		w.mu.Lock()
		w.busy = time.Time{} // who is at work by the next look is another
		w.mu.Unlock()
		dir.Close()
	}
	return context.Cause(ctx)
}

// advise puts the ways out of who serves in the place of those of who prepares.
func (w *watch) advise(found []prepare.Difference) {
	for i, d := range found {
		switch {
		case w.repairer != nil && w.plan.Load().IsRepaired(d):
			found[i] = d.Otherwise(repairing)
		case w.remedy != "":
			found[i] = d.Otherwise(w.remedy)
		}
	}
}

// otherPorts takes over the plan of a prepare that has shared the ports otherwise, and
// returns what tells of it; nil: there was none. The lock is held.
func (w *watch) otherPorts() func() {
	plan, ok := w.plan.Load().WithOtherPorts(w.dir)
	if !ok {
		return nil
	}
	w.pod.Replace(plan)
	w.plan.Store(&plan)
	w.changed()
	pods, vms := plan.Ports()
	return func() {
		w.log.Info("the ports that the pod keeps have changed", "podPorts", pods, "vmPorts", vms)
		w.portsChanged()
	}
}

// follow looks, and again at each change of links and tables, until ctx ends. Not to
// know any more is no reason to end what serves the VM.
func (w *watch) follow(ctx context.Context) {
	if err := w.pod.Unwatched(); err != nil {
		w.log.Info("the port guard is not watched", "cause", err)
	}
	if _, err := w.look(w.repairer == nil); err != nil {
		w.warnUnwatched("links", err)
		return
	}
	defer w.running.Wait()
	if w.repairer != nil && !w.repair(ctx, true) { // before a link's change tells of tables
		if _, err := w.look(true); err != nil {
			w.warnUnwatched("links", err)
			return
		}
	}
	w.running.Go(func() { w.followEach(ctx, w.pod.WaitTables, "the port guard") })
	w.running.Go(func() { w.followEach(ctx, w.waitIdle, "the state directory") })
	w.followEach(ctx, w.pod.Wait, "links")
}

func (w *watch) followEach(ctx context.Context, wait func(context.Context) error, what string) {
	for {
		err := wait(ctx)
		if ctx.Err() != nil {
			return
		}
		_, lookErr := w.look(true) // after an error too: less may be known
		if err = cmp.Or(err, lookErr); err != nil {
			w.warnUnwatched(what, err)
			return
		}
		w.repair(ctx, false)
	}
}

func (w *watch) warnUnwatched(what string, err error) {
	w.log.Warn("can't watch the pod for changes any more", "of", what, "error", err)
}

// close leaves what was seen last.
func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.reported.close()
	w.pod.Close()
}
