package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

var address = netip.MustParsePrefix("fd00::7/128")

// newTest is a server of which the kernel drops a frame each time it is asked.
func newTest(log *slog.Logger) *Server {
	return newServer(Config{Protocol: "DHCP", Tap: "tap0", Address: address, Log: log}, func() uint64 { return 1 })
}

// TestExpiry: a lease that is not renewed in time ends when it should, and one
// that is renewed does not.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(nil)
		bind := func() {
			s.Update(func(e Entry) { e.Step(lease.EventBound, time.Minute) })
		}
		bind()
		time.Sleep(59 * time.Second)
		bind()
		time.Sleep(59 * time.Second)
		if got := s.Status(); got.State != lease.Bound {
			t.Fatalf("renewed, and yet %s", got.State)
		}
		ends := s.Status().Expires
		status, err := s.Wait(t.Context(), func(s lease.Status) bool { return s.State == lease.None })
		if err != nil || !time.Now().Equal(ends) || !status.Since.Equal(ends) || status.LastEvent.Type != lease.EventExpired || !status.Expires.IsZero() {
			t.Errorf("at %v: %+v, %v", time.Now(), status, err)
		}
	})
}

// TestExpiryAfterNotes: a lease does not end if it was renewed in time, although that is
// not kept yet.
func TestExpiryAfterNotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(nil)
		s.Update(func(e Entry) { e.Step(lease.EventBound, time.Minute) })
		events := s.Events(t.Context())
		time.Sleep(time.Minute - time.Millisecond)
		s.Later(func() { s.Update(func(e Entry) { e.Step(lease.EventRenewed, time.Minute) }) })
		time.Sleep(time.Second)
		synctest.Wait()
		if event := <-events; event.Type != lease.EventRenewed {
			t.Errorf("%s", event.Type)
		}
		if got := s.Status(); got.State != lease.Bound {
			t.Errorf("renewed, and yet %s", got.State)
		}
	})
}

// TestResumedEnd: a lease that is taken over ends in time, whatever is done to the clock.
func TestResumedEnd(t *testing.T) {
	t.Parallel()
	const lasts = time.Hour
	for name, behind := range map[string]time.Duration{"clock as it was": 0, "clock set back by years": 50000 * time.Hour} {
		at := time.Now().Add(behind)
		was := lease.Status{Address: address, State: lease.Bound, LastEvent: lease.Event{Type: lease.EventBound, At: at}, Expires: at.Add(lasts)}
		b, err := json.Marshal(was)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &was); err != nil {
			t.Fatal(err)
		}
		s := newTest(nil)
		s.Resume(was)
		got := s.Status().Expires
		if left := time.Until(got); left <= 0 || left > lasts {
			t.Errorf("%s: it ends in %v", name, left)
		}
		// As time.Time.String has it: else it would end only if the clock agrees with the timer.
		if !strings.Contains(got.String(), " m=") {
			t.Errorf("%s: it ends at %v, which follows the clock when that is set", name, got)
		}
	}
}

// TestResumedLate: of a lease that has ended while nobody served, that is known.
func TestResumedLate(t *testing.T) {
	t.Parallel()
	ended := time.Now().Add(-time.Minute)
	was := lease.Status{Address: address, State: lease.Bound, Expires: ended, Client: lease.Client{Hostname: "web"}}
	s := newTest(nil)
	s.Resume(was)
	want := lease.Event{Type: lease.EventExpired, At: ended, Address: address, Client: was.Client}
	if got := s.Status(); got.State != lease.None || got.LastEvent != want || !got.Since.Equal(ended) || !got.Expires.IsZero() {
		t.Errorf("status is %+v", got)
	}
}

// TestRenewed: a lease has not been renewed before it was given.
func TestRenewed(t *testing.T) {
	t.Parallel()
	s := newTest(nil)
	step := func(typ lease.EventType) lease.Status {
		s.Update(func(e Entry) { e.Step(typ, 0) })
		return s.Status()
	}
	step(lease.EventBound)
	renewed := step(lease.EventRenewed)
	next := newTest(nil)
	next.Resume(renewed)
	if got := next.Status(); renewed.Renewed.IsZero() || !got.Renewed.Equal(renewed.Renewed) {
		t.Errorf("renewed at %v, after a restart at %v", renewed.Renewed, got.Renewed)
	}
	if got := step(lease.EventExpired); !got.Renewed.Equal(renewed.Renewed) {
		t.Errorf("renewed at %v, and once it has expired at %v", renewed.Renewed, got.Renewed)
	}
	if got := step(lease.EventBound); !got.Renewed.IsZero() {
		t.Errorf("since %v it was renewed at %v", got.Since, got.Renewed)
	}
	step(lease.EventRenewed)
	if got := step(lease.EventReleased); !got.Renewed.IsZero() {
		t.Errorf("released, and renewed at %v", got.Renewed)
	}
	if got := step(lease.EventRenewed); got.Renewed.Before(got.Since) || got.Renewed.IsZero() {
		t.Errorf("since %v it was renewed at %v", got.Since, got.Renewed)
	}
}

// TestExpiryOfClosed: of a server that is closed nothing is left that would say, perhaps
// days later, that a guest has not renewed its lease.
func TestExpiryOfClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
		s.Update(func(e Entry) { e.Step(lease.EventBound, time.Minute) })
		s.stopExpiry()
		s.Later(func() { s.Update(func(e Entry) { e.Step(lease.EventRenewed, time.Minute) }) })
		s.CatchUp()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := s.Status(); got.State != lease.Bound || strings.Contains(log.String(), "expired") {
			t.Errorf("it is %s:\n%s", got.State, &log)
		}
	})
}

// TestDeclined: the address is not to be given for a while.
func TestDeclined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(nil)
		s.DeclinePause = time.Minute
		s.Update(func(e Entry) { e.Step(lease.EventDeclined, 0) })
		if !s.IsDeclined() || s.Status().Declined.IsZero() {
			t.Errorf("not declined: %+v", s.Status())
		}
		time.Sleep(time.Minute)
		if s.IsDeclined() {
			t.Error("declined for good")
		}
	})
}

func TestCounters(t *testing.T) {
	s := newTest(nil)
	s.Drop(lease.DropMalformed)
	s.Drop(packet.ErrBadFrame)
	s.Drop(packet.ErrBadChecksum)
	s.Drop(errors.New("no buffer"))
	s.Drop(nil)
	s.Update(func(e Entry) {
		e.Received["SOLICIT"]++
	})
	s.Misfit(23, "misfit")
	s.Misfit(23, "misfit, in other words")
	was := s.Status()
	if was.Dropped[lease.DropMalformed] != 1 || was.Dropped[lease.DropBadFrame] != 1 || was.Dropped[lease.DropBadChecksum] != 1 ||
		was.Dropped[lease.DropUnsent] != 1 || was.Dropped[lease.DropOverBudget] != 1 || len(was.Dropped) != 5 ||
		was.LastError.Error != "send: no buffer" || was.Received["SOLICIT"] != 1 || len(was.Notes) != 1 {
		t.Errorf("got %+v", was)
	}
	was.Received["SOLICIT"], was.Notes[0] = 9, "changed"
	if now := s.Status(); now.Received["SOLICIT"] != 1 || now.Notes[0] != "option 23 left out: misfit" || now.Dropped[lease.DropOverBudget] != 2 {
		t.Errorf("a status is no value: %+v", now)
	}
}

// TestKeepEnd: a step that does not extend the lease leaves its end as it is.
func TestKeepEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTest(nil)
		s.Update(func(e Entry) { e.Step(lease.EventBound, time.Minute) })
		ends := s.Status().Expires
		time.Sleep(time.Second)
		s.Update(func(e Entry) { e.Step(lease.EventBound, KeepEnd) })
		if got := s.Status().Expires; !got.Equal(ends) {
			t.Errorf("ends at %v, not %v", got, ends)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.Status(); got.State != lease.None {
			t.Errorf("status is %+v", got)
		}
	})
}

// TestOtherSource: who asks with another MAC than the guest's is kept and warned
// of, and who forges one for every message fills neither memory nor log.
func TestOtherSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
		guest, forged := mac.Addr{2, 0, 0, 0, 0, 1}, mac.Addr{2, 1, 0, 0, 0, 0}
		refuse := func() {
			s.Drop(s.CheckUDP(packet.UDP{SrcMAC: forged, Dst: netip.MustParseAddrPort("[::]:547")}, 547, guest))
		}
		for range 3 {
			refuse()
		}
		want := lease.OtherSource{MAC: forged, Want: guest, Count: 3, At: time.Now()}
		if got := s.Status(); got.OtherSource != want || got.Dropped[lease.DropOtherSource] != 3 {
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
		if n := strings.Count(log.String(), "\n"); n != 1 || s.Status().OtherSource.Count != 20003 {
			t.Errorf("%d lines, status %+v", n, s.Status())
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
		"lease expired: the guest did not renew it": nil,
		"guest released its lease":                  func(e Entry) { e.Step(lease.EventReleased, 0) },
		"guest declined its address":                func(e Entry) { e.Step(lease.EventDeclined, 0) },
		"asked for another address":                 func(e Entry) { e.Step(lease.EventRefused, 0) },
	} {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
			s.Update(func(e Entry) { e.Step(lease.EventBound, time.Minute) })
			if end != nil {
				s.Update(end)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if text := log.String(); !strings.Contains(text, want) || strings.Contains(text, "none") || strings.Count(text, "\n") != 2 {
				t.Errorf("of the end it says\n%swithout, or beside, %q", text, want)
			}
		})
	}
}

// TestUnnamedClient: the log names a guest that has told its name, and no other.
func TestUnnamedClient(t *testing.T) {
	for _, name := range []string{"", "web"} {
		var log bytes.Buffer
		s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
		s.Received("REQUEST", false, lease.Client{Hostname: name}, nil)
		s.Update(func(e Entry) { e.Step(lease.EventBound, 0) })
		if named := strings.Contains(log.String(), "client="); named != (name != "") || !strings.Contains(log.String(), "address=") {
			t.Errorf("of the client %q it says\n%s", name, &log)
		}
	}
}

// TestOfferWhileBound: an offer ends no lease; what the guest takes of it is a new one.
func TestOfferWhileBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
		step := func(typ lease.EventType) lease.Status {
			time.Sleep(time.Second)
			s.Update(func(e Entry) { e.Step(typ, time.Minute) })
			return s.Status()
		}
		bound := step(lease.EventBound)
		step(lease.EventRenewed)
		was := s.Status()
		got := step(lease.EventOffered)
		if got.State != lease.Bound || got.Since != bound.Since || got.Renewed != was.Renewed || got.Expires != was.Expires || got.LastEvent.Type != lease.EventOffered || !strings.Contains(log.String(), "asks for one anew") {
			t.Errorf("offered, it is %+v, log\n%s", got, &log)
		}
		if got := step(lease.EventRenewed); got.Since != bound.Since {
			t.Errorf("renewed, it is since %v, not %v", got.Since, bound.Since)
		}
		step(lease.EventOffered)
		if got := step(lease.EventBound); got.Since != got.LastEvent.At || !got.Renewed.IsZero() || strings.Count(log.String(), "lease is bound") != 2 {
			t.Errorf("bound anew, it is %+v, log\n%s", got, &log)
		}
		step(lease.EventOffered)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := s.Status(); got.State != lease.None || got.LastEvent.Type != lease.EventExpired {
			t.Errorf("offered and not taken, it is %+v", got)
		}
	})
}

// TestOfferAfterTapWasClosed: who asks after the tap was closed is another guest, or one
// that has booted; who does not was resumed.
func TestOfferAfterTapWasClosed(t *testing.T) {
	t.Parallel()
	const open, closed, down = unix.IFF_UP | unix.IFF_RUNNING | unix.IFF_LOWER_UP, unix.IFF_UP, unix.IFF_BROADCAST
	bound := lease.Status{Address: address, State: lease.Bound}
	for name, c := range map[string]struct {
		flags []uint32
		want  lease.State
	}{
		"open":                     {[]uint32{open}, lease.Bound},
		"down meanwhile":           {[]uint32{open, down, open}, lease.Bound},
		"closed meanwhile":         {[]uint32{open, closed, open}, lease.Offered},
		"closed while it was down": {[]uint32{open, down, closed, open}, lease.Offered},
		"closed at the start":      {[]uint32{closed, open}, lease.Offered},
	} {
		s := newTest(nil)
		s.follow(c.flags[0])
		s.Resume(bound)
		for _, flags := range c.flags {
			s.follow(flags)
			if got := s.Status(); got.State != lease.Bound || got.IsHeld() == (flags == closed) {
				t.Errorf("%s, with flags %#x: %+v", name, flags, got)
			}
		}
		s.Update(func(e Entry) { e.Step(lease.EventOffered, 0) })
		if got := s.Status(); got.State != c.want {
			t.Errorf("%s: who asks then is %s, want %s", name, got.State, c.want)
		}
		s.Update(func(e Entry) { e.Step(lease.EventBound, 0) })
		s.Update(func(e Entry) { e.Step(lease.EventOffered, 0) })
		if got := s.Status(); !got.IsHeld() {
			t.Errorf("%s: who has the lease and asks anew has %s", name, got.State)
		}
	}
}

// TestInformingClient: who asks for settings alone is not taken for who has the lease.
func TestInformingClient(t *testing.T) {
	t.Parallel()
	has, other := lease.Client{Hostname: "web", ID: "01"}, lease.Client{ID: "02"}
	for _, kind := range informing {
		s := newTest(nil)
		s.Received(kind, false, other, nil)
		if got := s.Status(); got.Client != other {
			t.Errorf("%s: of a guest without a lease it is known: %+v", kind, got.Client)
		}
		s.Received("REQUEST", false, has, nil)
		s.Update(func(e Entry) { e.Step(lease.EventBound, 0) })
		s.Received(kind, false, other, nil)
		if got := s.Status(); got.Client != has || got.LastMessage.Type != kind {
			t.Errorf("%s: the lease is said to be of %+v, the last message a %s", kind, got.Client, got.LastMessage.Type)
		}
	}
}

// TestOtherOffer: a guest that takes another server's offer has none of ours any more.
func TestOtherOffer(t *testing.T) {
	var log bytes.Buffer
	s := newTest(slog.New(slog.NewTextHandler(&log, nil)))
	s.Update(func(e Entry) { e.Step(lease.EventOffered, 0) })
	s.Received("REQUEST", false, lease.Client{}, lease.DropOtherServer)
	if got := s.Status(); got.State != lease.None || !strings.Contains(log.String(), "guest took another server's offer") {
		t.Errorf("status is %+v, log\n%s", got, &log)
	}
}
