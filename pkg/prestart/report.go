package prestart

import (
	"slices"
	"time"

	"golang.org/x/time/rate"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// How the network differs from the plan is logged at once reportsAtOnce times; beyond that
// it is summed up each reportPause: a link may go up and down without end.
const (
	reportsAtOnce = 10
	reportPause   = time.Minute
)

// report is what a watch has logged of what differs.
type report struct {
	logged  []prepare.Difference
	limit   *rate.Limiter
	counted []prepare.Difference // what differed when changes were counted last
	changes int                  // how often that has changed since it was logged
	summary *time.Timer          // logs them; nil: none are counted
}

func newReport() report {
	return report{limit: rate.NewLimiter(rate.Every(reportPause), reportsAtOnce)}
}

// report returns what the log says of what is new since it last did. The lock is held.
func (w *watch) report() []func() {
	r := &w.reported
	if r.summary == nil {
		if slices.Equal(w.found, r.logged) {
			return nil
		}
		if r.limit.Allow() {
			return w.news()
		}
		r.summary, r.counted = time.AfterFunc(reportPause, w.sumUp), r.logged
	}
	if !slices.Equal(w.found, r.counted) {
		r.counted = w.found
		r.changes++
	}
	return nil
}

// sumUp logs the changes that were counted, and what is so now.
func (w *watch) sumUp() {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return
	}
	r := &w.reported
	changes, asPlanned := r.changes, len(w.found) == 0
	r.summary, r.changes = nil, 0
	lines := w.news()
	w.mu.Unlock()
	w.log.Warn("the VM's network changes again and again: each minute the log says how often", "times", changes, "within", reportPause, "asPlanned", asPlanned)
	for _, line := range lines {
		line()
	}
}

// news returns lines of what is new since the log last had it. The lock is held.
func (w *watch) news() (lines []func()) {
	logged := w.reported.logged
	for _, d := range w.found {
		if !slices.Contains(logged, d) {
			lines = append(lines, func() {
				w.log.Error("the VM's network is not as planned", "what", d.What, "is", d.Is, "want", d.Want, "remedy", d.Remedy)
			})
		}
	}
	if len(w.found) == 0 && len(logged) > 0 {
		lines = append(lines, func() { w.log.Info("the VM's network is as planned again") })
	}
	w.reported.logged = w.found
	return lines
}

// close ends what is counted. The lock is held.
func (r *report) close() {
	if r.summary != nil {
		r.summary.Stop()
	}
}
