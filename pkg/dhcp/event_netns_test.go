package dhcp

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// TestEvents: each step of a lease's life is told, with who took it.
func TestEvents(t *testing.T) {
	tap := newTap(t)
	l := testLease()
	l.Duration = time.Second
	s := serveOn(t, tap, l, func(s *leaseServer) { s.DeclinePause = time.Nanosecond })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := s.Events(ctx)
	next := func(want lease.EventType) lease.Event {
		t.Helper()
		select {
		case e := <-events:
			if e.Type != want || e.At.IsZero() || e.Address != l.Address || e.Missed != 0 {
				t.Fatalf("got %+v, want %s", e, want)
			}
			return e
		case <-time.After(patience):
			t.Fatalf("no event, want %s", want)
			return lease.Event{}
		}
	}
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)

	guest.send(probe.Discover(guestMAC, xid)) // makes no event
	guest.receive(patience)
	guest.ask(discover(dhcpv4.OptHostName("vm-a"), dhcpv4.OptClassIdentifier("c"), generic(optClientID, 1, 2)))
	if e := next(lease.EventOffered); e.Client != (lease.Client{Hostname: "vm-a", VendorClass: "c", ID: "0102"}) {
		t.Errorf("client is %+v", e.Client)
	}
	guest.ask(request(dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address)))
	next(lease.EventBound)
	guest.ask(with(request(), ciaddr(address)))
	renewed := next(lease.EventRenewed)
	expired := next(lease.EventExpired)
	if status := s.Status(); status.State != lease.None || status.Renewed != renewed.At || status.LastEvent != expired {
		t.Errorf("status is %+v", status)
	}
	guest.ask(request(dhcpv4.OptRequestedIPAddress(address))) // INIT-REBOOT
	next(lease.EventBound)
	guest.ask(request(dhcpv4.OptRequestedIPAddress(stale)))
	next(lease.EventRefused)
	guest.send(guestFrame(message(dhcpv4.MessageTypeDecline, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address))))
	declined := next(lease.EventDeclined)
	guest.dora()
	next(lease.EventOffered)
	next(lease.EventBound)
	guest.send(guestFrame(with(message(dhcpv4.MessageTypeRelease, dhcpv4.OptServerIdentifier(server)), ciaddr(address))))
	next(lease.EventReleased)
	if status := s.Status(); status.Declined != declined.At {
		t.Errorf("declined at %v, status says %v", declined.At, status.Declined)
	}
	cancel()
	for range events { // closed
	}
}

// TestSlowReader: one that does not read costs nobody anything, and learns what
// it has missed.
func TestSlowReader(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease(), func(s *leaseServer) { s.SetBudget(1000) })
	slow := s.Events(t.Context())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	for range serve.EventsAhead + 3 {
		guest.ask(discover())
	}
	await(t, s, "offers", func(s lease.Status) bool { return s.Sent["OFFER"] == serve.EventsAhead+3 })
	for range serve.EventsAhead {
		if e := <-slow; e.Missed != 0 {
			t.Fatalf("missed before any was lost: %+v", e)
		}
	}
	guest.dora()
	if e := <-slow; e.Type != lease.EventOffered || e.Missed != 3 {
		t.Errorf("got %+v, want 3 missed", e)
	}
}

// TestRefusal: the log says which address a guest wants instead of its own.
func TestRefusal(t *testing.T) {
	tap := newTap(t)
	var log podtest.Buffer
	s := serveOn(t, tap, testLease(), func(s *leaseServer) { s.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	for i, m := range []*dhcpv4.DHCPv4{
		request(dhcpv4.OptRequestedIPAddress(stale)),
		with(request(), ciaddr(stale)),
		with(request(dhcpv4.OptRequestedIPAddress(address)), ciaddr(stale)),
	} {
		guest.ask(m)
		await(t, s, "refused", func(s lease.Status) bool { return s.Sent["NAK"] == uint64(i+1) })
	}
	if text := log.String(); strings.Count(text, "requested="+stale.String()+"\n") != 3 || strings.Contains(text, `=""`) {
		t.Errorf("of %v the log says\n%s", stale, text)
	}
}

// TestResume: a new server knows what the one before knew, while that holds.
func TestResume(t *testing.T) {
	now := time.Now()
	bound := lease.Status{State: lease.Bound, Address: testLease().Address, Since: now.Add(-time.Hour), Client: lease.Client{Hostname: "vm"}}
	changed := func(change func(*lease.Status)) lease.Status {
		s := bound
		change(&s)
		return s
	}
	for _, c := range []struct {
		name string
		was  lease.Status
		want lease.State
	}{
		{"infinite", bound, lease.Bound},
		{"not over", changed(func(s *lease.Status) { s.Expires = now.Add(time.Hour) }), lease.Bound},
		{"over", changed(func(s *lease.Status) { s.Expires = now.Add(-time.Second) }), lease.None},
		{"another address", changed(func(s *lease.Status) { s.Address = netip.MustParsePrefix("192.0.2.9/24") }), lease.None},
		{"offered", changed(func(s *lease.Status) { s.State, s.LastEvent.Type = lease.Offered, lease.EventOffered }), lease.Offered},
		{"released", changed(func(s *lease.Status) { s.State, s.LastEvent.Type = lease.None, lease.EventReleased }), lease.None},
		{"unheard of", changed(func(s *lease.Status) { s.State, s.Client = "half", lease.Client{} }), lease.None},
		{"nothing", lease.Status{}, lease.None},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, newTap(t), testLease())
			s.Resume(c.was)
			got := s.Status()
			if got.State != c.want {
				t.Fatalf("state is %s, want %s", got.State, c.want)
			}
			if c.want == c.was.State && (got.Since != c.was.Since || !got.Expires.Equal(c.was.Expires) || got.Client != c.was.Client || got.LastEvent != c.was.LastEvent) {
				t.Errorf("status is %+v", got)
			}
		})
	}
	declined := changed(func(s *lease.Status) {
		s.State, s.Declined, s.LastEvent = lease.None, now, lease.Event{Type: lease.EventDeclined, At: now, Address: s.Address}
	})
	s := newServer(t, newTap(t), testLease())
	s.Resume(declined)
	if got := s.Status(); got.State != lease.None || got.Declined != now || got.LastEvent != declined.LastEvent || got.Since != declined.Since {
		t.Errorf("of a declined address a new server knows %+v", got)
	}
	s = newServer(t, newTap(t), testLease())
	s.Resume(changed(func(s *lease.Status) { s.Expires = time.Now().Add(50 * time.Millisecond) }))
	await(t, s, "the end of the lease", func(s lease.Status) bool { return s.State == lease.None })
}
