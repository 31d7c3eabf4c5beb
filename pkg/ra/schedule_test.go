package ra

import (
	"testing"
	"time"
)

func TestSchedule(t *testing.T) {
	now := time.Unix(1000, 0)
	s := schedule{interval: defaultInterval}
	s.begin(now)
	if s.next != now {
		t.Fatalf("the first is due in %v", s.next.Sub(now))
	}
	for i := range 2 {
		s.sent(now)
		if pause := s.next.Sub(now); pause != initialInterval {
			t.Errorf("after %d: %v until the next, want %v", i+1, pause, initialInterval)
		}
		now = s.next
	}
	for range 100 {
		s.sent(now)
		if pause := s.next.Sub(now); pause < defaultInterval/3 || pause > defaultInterval {
			t.Errorf("%v until the next", pause)
		}
		now = s.next
	}

	s.sent(now)
	s.hasten(now.Add(time.Second))
	if pause := s.next.Sub(now); pause != minDelayBetweenRAs {
		t.Errorf("wanted a second later, due after %v", pause)
	}
	s.hasten(now.Add(2 * time.Second)) // wanted twice is sent once
	if pause := s.next.Sub(now); pause != minDelayBetweenRAs {
		t.Errorf("wanted twice, due after %v", pause)
	}
	later := now.Add(time.Minute)
	s.next = later.Add(time.Hour)
	s.hasten(later)
	if s.next != later {
		t.Errorf("wanted a minute later, due %v after", s.next.Sub(later))
	}

	short := schedule{interval: minInterval}
	short.begin(now)
	for range 100 {
		short.sent(now)
		if pause := short.next.Sub(now); pause < minDelayBetweenRAs || pause > minInterval {
			t.Errorf("%v until the next", pause)
		}
	}
}

func TestInterval(t *testing.T) {
	for _, c := range []struct{ router, other, want time.Duration }{
		{MaxRouterLifetime, 0, defaultInterval},
		{0, 0, defaultInterval},
		{30 * time.Minute, 0, defaultInterval},
		{15 * time.Minute, 0, 5 * time.Minute},
		{MaxRouterLifetime, time.Minute, 20 * time.Second},
		{time.Second, 0, minInterval},
	} {
		if got := (Advertisement{RouterLifetime: c.router, Lifetime: c.other}).interval(); got != c.want {
			t.Errorf("lifetimes %v and %v: got %v, want %v", c.router, c.other, got, c.want)
		}
	}
}
