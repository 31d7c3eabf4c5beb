package ra

import (
	"math/rand/v2"
	"time"
)

// Constants of RFC 4861 §6.2.1 and §10.
const (
	defaultInterval    = 600 * time.Second // MaxRtrAdvInterval
	minInterval        = 4 * time.Second   // of MaxRtrAdvInterval
	initialInterval    = 16 * time.Second  // MAX_INITIAL_RTR_ADVERT_INTERVAL
	initialCount       = 3                 // MAX_INITIAL_RTR_ADVERTISEMENTS
	minDelayBetweenRAs = 3 * time.Second   // MIN_DELAY_BETWEEN_RAS
)

// interval is the longest time between two advertisements that lets a guest
// miss two of them before the router's lifetime is over (MaxRtrAdvInterval).
func (a Advertisement) interval() time.Duration {
	if a.RouterLifetime == 0 {
		return defaultInterval
	}
	return max(min(defaultInterval, a.RouterLifetime/3), minInterval)
}

// schedule says when the next advertisement to all is due. It has no clock.
type schedule struct {
	interval time.Duration // MaxRtrAdvInterval
	initial  int           // how many are still among the first ones
	last     time.Time     // when one was sent
	next     time.Time     // when the next one is due
}

// begin is for a guest that may be new: one now, and the first ones soon after
// each other.
func (s *schedule) begin(now time.Time) {
	s.initial = initialCount
	s.hasten(now)
}

// hasten wants one now, or as soon as may be: two to all are never closer than
// three seconds (RFC 4861 §6.2.6). The random delay before an answer, of at
// most half a second, keeps several routers apart; there is only one on a tap,
// so that it is always zero.
func (s *schedule) hasten(now time.Time) {
	at := s.last.Add(minDelayBetweenRAs)
	if at.Before(now) {
		at = now
	}
	if s.next.IsZero() || at.Before(s.next) {
		s.next = at
	}
}

// sent sets the timer anew after one was sent: a random time between the least
// and the greatest interval, and not more than sixteen seconds for the first
// ones (RFC 4861 §6.2.4).
func (s *schedule) sent(now time.Time) {
	least := max(s.interval/3, minDelayBetweenRAs) // MinRtrAdvInterval
	pause := least + rand.N(max(s.interval-least, 1))
	if s.initial > 0 {
		s.initial--
		if s.initial > 0 {
			pause = min(pause, initialInterval)
		}
	}
	s.last, s.next = now, now.Add(pause)
}

// skip leaves one out.
func (s *schedule) skip(now time.Time) { s.next = now.Add(s.interval) }
