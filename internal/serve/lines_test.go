package serve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
)

// slow is a handler that keeps what it is given, the first line after it may.
type slow struct {
	slog.Handler
	started, may chan struct{}
	written      *[]string
}

func (s slow) Handle(_ context.Context, r slog.Record) error {
	if len(*s.written) == 0 {
		close(s.started)
		<-s.may
	}
	*s.written = append(*s.written, r.Message)
	return nil
}

// Lines are written in their order, none while a lock is held, and nobody waits for a
// writer that is stuck, behind which only so many wait.
func TestLinesBehindStuckWriter(t *testing.T) {
	w := slow{slog.NewTextHandler(io.Discard, nil), make(chan struct{}), make(chan struct{}), new([]string)}
	q := &queue{}
	log := slog.New(lines{w, q})
	release := q.hold()
	log.Error("0")
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
		log.Error(fmt.Sprint(i + 1))
	}
	close(w.may)
	<-done
	if len(*w.written) != mostWaiting+1 {
		t.Errorf("%d lines are written", len(*w.written))
	}
	for i, line := range *w.written {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
}
