package packet

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(10, 10)
		start := time.Now()
		for range 10 { // the burst
			if err := b.wait(t.Context()); err != nil || time.Since(start) != 0 {
				t.Fatalf("after %v: %v", time.Since(start), err)
			}
		}
		for range 20 { // two seconds' worth
			if err := b.wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(start).Round(time.Millisecond); got != 2*time.Second {
			t.Errorf("20 more took %v, want 2s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := b.wait(ctx); err == nil {
			t.Error("no error after the context ended")
		}
		time.Sleep(time.Hour) // saves no more than a burst
		if b.take(time.Now()); b.tokens > 9 {
			t.Errorf("%v tokens after an hour", b.tokens)
		}
		for range 9 {
			if !b.Spare(time.Now()) {
				t.Fatal("none to spare")
			}
		}
		if b.Spare(time.Now()) {
			t.Error("one too many")
		}
	})
}
