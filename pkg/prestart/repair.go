package prestart

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// A session that repairs makes a NIC's nftables tables whole again when another program
// deletes or changes them: repairsAtOnce times, and then once in each repairPause, so that
// a program which does so again and again is not fought.
const (
	repairsAtOnce = 10
	repairPause   = time.Minute
)

// What is logged of tables that are repaired. Those that differ when the session begins need
// nobody to have changed them: the program that prepared the pod may have had other rules.
const (
	madeBefore   = "replaced the VM's nftables tables, or the aliases at its tap: another version of this program had prepared the pod, or another program has changed them"
	changedSince = "repaired the VM's nftables tables, or the aliases at its tap, which another program had deleted or changed"
)

// repairing is in the place of the way out while it is done.
const repairing = "it is repaired at once; where that fails, the log says why"

// repairer makes the tables of one NIC whole again. Nil repairs nothing.
type repairer struct {
	tables func(context.Context) (repaired bool, err error)
	limit  *rate.Limiter

	mu      sync.Mutex // is held while it is at work
	waiting bool       // it tries again later
	logged  string     // the last error
}

func newRepairer(tables func(context.Context) (bool, error)) *repairer {
	return &repairer{tables: tables, limit: rate.NewLimiter(rate.Every(repairPause), repairsAtOnce)}
}

// repairTables makes the tables of a NIC whole again, in its network namespace. It does
// not wait for an Unplug, which waits for it.
func (s *Session) repairTables(ctx context.Context, name string) (repaired bool, err error) {
	repair := func() (err error) {
		repaired, err = prepare.RepairTables(ctx, s.hook.Log, s.hook.StateDir, name)
		return err
	}
	err = in(s.hook.Netns, func() error { return s.there(repair) })
	return repaired, err
}

// repair makes tables whole again that differ from the plan, if the session repairs. What
// can't be done now is tried again later, until ctx ends. begins says that the session
// has not looked before. It tells whether it has repaired something.
func (w *watch) repair(ctx context.Context, begins bool) bool {
	r := w.repairer
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.needsRepair() {
		return false
	}
	if r.limit.Tokens() < 1 {
		if !r.waiting && r.logged == "" { // else why it fails is told
			w.log.Error("another program deletes or changes the VM's nftables tables again and again: they are repaired more slowly from now on", "atMostEvery", repairPause)
		}
		w.repairLater(ctx)
		return false
	}
	repaired, err := r.tables(ctx)
	if repaired || err != nil { // else who prepares has been sooner
		r.limit.Allow()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if text := err.Error(); text != r.logged {
			w.log.Error("can't repair the VM's nftables tables: trying again, also when a link or table changes", "error", err, "again", repairPause)
			r.logged = text
		}
		w.repairLater(ctx)
	case repaired && begins:
		w.log.Warn(madeBefore)
		r.logged = ""
	case repaired:
		w.log.Warn(changedSince)
		r.logged = ""
	}
	return repaired && err == nil
}

// repairLater tries again after a while, unless that is to be already. The lock is held.
func (w *watch) repairLater(ctx context.Context) {
	if w.repairer.waiting {
		return
	}
	w.repairer.waiting = true
	w.running.Go(func() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(repairPause):
		}
		w.repairer.mu.Lock()
		w.repairer.waiting = false
		w.repairer.mu.Unlock()
		_, _ = w.look(true) // its follow tells of an error
		w.repair(ctx, false)
	})
}

// needsRepair tells whether something that is repaired was not as planned when it was last
// looked at.
func (w *watch) needsRepair() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.found, w.plan.Load().IsRepaired)
}
