package serve

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
)

// mostWaiting is how many lines wait for a writer that is stuck; those beyond are lost.
const mostWaiting = 1000

// lines is a log whose lines are written while no lock of the server is held: who writes
// them may ask the server for what it knows, and who asks waits for no writer.
type lines struct {
	slog.Handler
	*queue
}

type queue struct {
	locks   atomic.Int32 // how many are held, so that lines are buffered
	mu      sync.Mutex
	waiting []func()
	writing bool
}

// Handle writes a line now, or once the locks are released, in the order of the lines.
func (l lines) Handle(ctx context.Context, r slog.Record) error {
	ctx, r = context.WithoutCancel(ctx), r.Clone()
	l.mu.Lock()
	if len(l.waiting) < mostWaiting {
		l.waiting = append(l.waiting, func() { _ = l.Handler.Handle(ctx, r) })
	}
	l.mu.Unlock()
	l.write()
	return nil
}

// WithAttrs implements [slog.Handler].
func (l lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return lines{l.Handler.WithAttrs(attrs), l.queue}
}

// WithGroup implements [slog.Handler].
func (l lines) WithGroup(name string) slog.Handler { return lines{l.Handler.WithGroup(name), l.queue} }

// buffer is called before a lock is taken, and flush after it was released.
func (q *queue) buffer() (flush func()) {
	q.locks.Add(1)
	return func() {
		q.locks.Add(-1)
		q.write()
	}
}

// write writes what waits, unless somebody does or a lock is held: then they do.
func (q *queue) write() {
	if q.locks.Load() > 0 {
		return
	}
	q.mu.Lock()
	if q.writing {
		q.mu.Unlock()
		return
	}
	q.writing = true
	for len(q.waiting) > 0 {
		all := q.waiting
		q.waiting = nil
		q.mu.Unlock()
		for _, line := range all {
			line()
		}
		q.mu.Lock()
	}
	q.writing = false
	q.mu.Unlock()
}
