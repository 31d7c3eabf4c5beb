package packet

import (
	"context"
	"time"
)

// Budget is how many things may be done: so many per second, and so many at once.
// While it is spent nothing is read, so that a guest that sends without end costs the
// kernel's receive buffer and no more: what does not fit there is dropped before it
// wakes us. It is for one goroutine, or under a lock.
type Budget struct {
	rate   float64 // per second
	burst  float64 // at once
	tokens float64
	at     time.Time
}

// NewBudget returns a Budget of which nothing is spent.
func NewBudget(perSecond, atOnce int) *Budget {
	return &Budget{rate: float64(perSecond), burst: float64(atOnce), tokens: float64(atOnce), at: time.Now()}
}

// wait takes one, as soon as there is one or ctx ends.
func (b *Budget) wait(ctx context.Context) error {
	pause := b.take(time.Now())
	if pause == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// take takes one and says how long it takes until it is there.
func (b *Budget) take(now time.Time) time.Duration {
	b.refill(now)
	b.tokens--
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

// Spare takes one if there is one.
func (b *Budget) Spare(now time.Time) bool {
	b.refill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (b *Budget) refill(now time.Time) {
	b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*b.rate, b.burst)
	b.at = now
}
