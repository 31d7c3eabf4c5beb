package journal

import (
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var address = netip.MustParsePrefix("fd00::7/128")

func newJournal() *Journal {
	j := New("DHCP", "tap0", slog.New(slog.DiscardHandler), func() uint64 { return 1 })
	j.SetLease(address, nil)
	return j
}

// TestExpiry: a lease that is not renewed in time ends when it should, and one
// that is renewed does not.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		bind := func() {
			j.Write(func(e Entry) { e.State(Bound, time.Minute) })
		}
		bind()
		time.Sleep(59 * time.Second)
		bind()
		time.Sleep(59 * time.Second)
		if got := j.Status(); got.State != Bound {
			t.Fatalf("renewed, and yet %s", got.State)
		}
		ends := j.Status().Expires
		status, err := j.Wait(t.Context(), func(s Status) bool { return s.State == None })
		if err != nil || !time.Now().Equal(ends) || !status.Since.Equal(ends) || status.LastEvent.Type != EventExpired || !status.Expires.IsZero() {
			t.Errorf("at %v: %+v, %v", time.Now(), status, err)
		}
	})
}

// TestDeclined: the address is not to be given for a while, or until the lease
// is another.
func TestDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJournal()
		decline := func() {
			j.Write(func(e Entry) { e.Declined(time.Minute) })
		}
		decline()
		if !j.IsDeclined() || j.Status().Declined.IsZero() {
			t.Errorf("not declined: %+v", j.Status())
		}
		time.Sleep(time.Minute)
		if j.IsDeclined() {
			t.Error("declined for good")
		}
		decline()
		if j.SetLease(address, []string{"note"}); j.IsDeclined() {
			t.Error("the new lease is declined")
		}
	})
}

func TestCounters(t *testing.T) {
	j := newJournal()
	j.Refuse(BadFrame)
	j.Refuse(errors.New("no silence"))
	j.Unsent(errors.New("no buffer"))
	j.Write(func(e Entry) {
		e.Received("SOLICIT")
		e.Note("misfit")
		e.Note("misfit")
	})
	was := j.Status()
	if was.Dropped[BadFrame] != 1 || was.Dropped[Unsent] != 1 || was.Dropped[OverBudget] != 1 || len(was.Dropped) != 3 ||
		was.LastError.Error != "send: no buffer" || was.Received["SOLICIT"] != 1 || len(was.Notes) != 1 {
		t.Errorf("got %+v", was)
	}
	was.Received["SOLICIT"], was.Notes[0] = 9, "changed"
	if now := j.Status(); now.Received["SOLICIT"] != 1 || now.Notes[0] != "misfit" || now.Dropped[OverBudget] != 2 {
		t.Errorf("a status is no value: %+v", now)
	}
}
