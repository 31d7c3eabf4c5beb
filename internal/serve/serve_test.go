package journal

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
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

// TestOtherSource: who asks with another MAC than the guest's is kept and warned
// of, and who forges one for every message fills neither memory nor log.
func TestOtherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		j := New("DHCP", "tap0", slog.New(slog.NewTextHandler(&log, nil)), func() uint64 { return 0 })
		guest, forged := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 1, 0, 0, 0, 0}
		refuse := func() { j.RefuseSource("other-source", forged, guest) }
		for range 3 {
			refuse()
		}
		want := OtherSource{MAC: "02:01:00:00:00:00", Want: "02:00:00:00:00:01", Count: 3, At: time.Now()}
		if got := j.Status(); got.OtherSource != want || got.Dropped["other-source"] != 3 {
			t.Errorf("status is %+v", got)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "mac=02:01:00:00:00:00 want=02:00:00:00:00:01 remedy=") {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		for i := range 20000 {
			forged[4], forged[5] = byte(i>>8), byte(i)
			refuse()
			time.Sleep(time.Millisecond)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 || j.Status().OtherSource.Count != 20003 {
			t.Errorf("%d lines, status %+v", n, j.Status())
		}
		time.Sleep(time.Hour)
		refuse()
		refuse()
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
		time.Sleep(time.Hour)
		refuse() // as before
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines:\n%s", n, log.String())
		}
	})
}

// TestEndIsSaid: the log says in words why there is no lease any more.
func TestEndIsSaid(t *testing.T) {
	for want, end := range map[string]func(Entry){
		"lease has ended: the guest did not renew it": nil,
		"guest gave up its lease":                     Entry.Released,
		"guest took another server's offer":           Entry.OtherOffer,
		"guest declined its address":                  func(e Entry) { e.Declined(time.Minute) },
		"asked for another address":                   func(e Entry) { e.Refused() },
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			j := New("DHCP", "tap0", slog.New(slog.NewTextHandler(&log, nil)), func() uint64 { return 0 })
			j.SetLease(address, nil)
			j.Write(func(e Entry) { e.State(Bound, time.Minute) })
			if end != nil {
				j.Write(end)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if text := log.String(); !strings.Contains(text, want) || strings.Contains(text, "none") || strings.Count(text, "\n") != 2 {
				t.Errorf("of the end it says\n%swithout, or beside, %q", text, want)
			}
		})
	}
}
