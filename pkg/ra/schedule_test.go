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
	for _, c := range []struct{ router, want time.Duration }{
		{MaxRouterLifetime, defaultInterval},
		{0, defaultInterval},
		{30 * time.Minute, defaultInterval},
		{15 * time.Minute, 5 * time.Minute},
		{time.Second, minInterval},
	} {
		if got := (Advertisement{RouterLifetime: c.router}).interval(); got != c.want {
			t.Errorf("lifetime %v: got %v, want %v", c.router, got, c.want)
		}
	}
}
