package serve

import (
	"context"
	"log/slog"
	"testing"
)

// slow is a handler that keeps what it is given, the first line after it may.
type slow struct {
	slog.Handler
	started, may chan struct{}
	written      *[]int64
}

func (slow) Enabled(context.Context, slog.Level) bool { return true }

func (s slow) Handle(_ context.Context, r slog.Record) error {
	if len(*s.written) == 0 {
		close(s.started)
		<-s.may
	}
	r.Attrs(func(a slog.Attr) bool {
		*s.written = append(*s.written, a.Value.Int64())
		return true
	})
	return nil
}

// Lines are written in their order, none while a lock is held, and nobody waits for a
// writer that is stuck, behind which only so many wait.
func TestLinesBehindStuckWriter(t *testing.T) {
	w := slow{slog.DiscardHandler, make(chan struct{}), make(chan struct{}), new([]int64)}
	q := &queue{}
	log := slog.New(lines{w, q})
	release := q.buffer()
	log.Error("line", "number", 0)
	if len(*w.written) > 0 {
		t.Error("a line is written under a lock")
	}
	done := make(chan struct{})
	go func() {
		release()
		close(done)
	}()
	<-w.started
	for i := range mostWaiting + 10 {
		log.Error("line", "number", i+1)
	}
	close(w.may)
	<-done
	if len(*w.written) != mostWaiting+1 {
		t.Errorf("%d lines are written", len(*w.written))
	}
	for i, number := range *w.written {
		if number != int64(i) {
			t.Fatalf("line %d is %d", i, number)
		}
	}
}
