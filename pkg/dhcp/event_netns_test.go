package dhcp

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// TestEvents: each step of a lease's life is told, with who took it.
func TestEvents(t *testing.T) {
	tap := newTap(t)
	lease := testLease()
	lease.Duration = time.Second
	s := serve(t, listenOn(t, tap), lease, func(s *Server) { s.DeclinePause = time.Nanosecond })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := s.Events(ctx)
	next := func(want EventType) Event {
		t.Helper()
		select {
		case e := <-events:
			if e.Type != want || e.At.IsZero() || e.Address != lease.Address || e.Missed != 0 {
				t.Fatalf("got %+v, want %s", e, want)
			}
			return e
		case <-time.After(patience):
			t.Fatalf("no event, want %s", want)
			return Event{}
		}
	}
	ip(t, "link set tap0 up")
	guest := sit(t, tap)

	guest.send(DiscoverFrame(guestMAC, 7)) // makes no event
	guest.receive(patience)
	guest.ask(discover(dhcpv4.OptHostName("vm-a"), dhcpv4.OptClassIdentifier("c"), generic(optClientID, 1, 2)))
	if e := next(EventOffered); e.Client != (Client{Hostname: "vm-a", VendorClass: "c", ID: "0102"}) {
		t.Errorf("client is %+v", e.Client)
	}
	guest.ask(request(dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address)))
	next(EventBound)
	guest.ask(with(request(), ciaddr(address)))
	renewed := next(EventRenewed)
	expired := next(EventExpired)
	if status := s.Status(); status.State != None || status.Renewed != renewed.At || status.LastEvent != expired {
		t.Errorf("status is %+v", status)
	}
	guest.ask(request(dhcpv4.OptRequestedIPAddress(address))) // INIT-REBOOT
	next(EventBound)
	guest.ask(request(dhcpv4.OptRequestedIPAddress(stale)))
	next(EventRefused)
	guest.send(guestFrame(message(dhcpv4.MessageTypeDecline, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address))))
	declined := next(EventDeclined)
	guest.dora()
	next(EventOffered)
	next(EventBound)
	guest.send(guestFrame(with(message(dhcpv4.MessageTypeRelease, dhcpv4.OptServerIdentifier(server)), ciaddr(address))))
	next(EventReleased)
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
	s := serve(t, listenOn(t, tap), testLease(), func(s *Server) { s.Budget = 1000 })
	slow := s.Events(t.Context())
	ip(t, "link set tap0 up")
	guest := sit(t, tap)
	for range journal.EventsAhead + 3 {
		guest.ask(discover())
	}
	await(t, s, "offers", func(s Status) bool { return s.Sent["OFFER"] == journal.EventsAhead+3 })
	for range journal.EventsAhead {
		if e := <-slow; e.Missed != 0 {
			t.Fatalf("missed before any was lost: %+v", e)
		}
	}
	guest.dora()
	if e := <-slow; e.Type != EventOffered || e.Missed != 3 {
		t.Errorf("got %+v, want 3 missed", e)
	}
}

// TestResume: a new server knows what the one before knew, while that holds.
func TestResume(t *testing.T) {
	now := time.Now()
	bound := Status{State: Bound, Address: testLease().Address, Since: now.Add(-time.Hour), Client: Client{Hostname: "vm"}}
	changed := func(change func(*Status)) Status {
		s := bound
		change(&s)
		return s
	}
	for _, c := range []struct {
		name string
		was  Status
		want State
	}{
		{"infinite", bound, Bound},
		{"not over", changed(func(s *Status) { s.Expires = now.Add(time.Hour) }), Bound},
		{"over", changed(func(s *Status) { s.Expires = now.Add(-time.Second) }), None},
		{"another address", changed(func(s *Status) { s.Address = netip.MustParsePrefix("192.0.2.9/24") }), None},
		{"offered", changed(func(s *Status) { s.State = Offered }), None},
		{"nothing", Status{}, None},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := NewServer(listenOn(t, newTap(t)), testLease(), nil)
			if err != nil {
				t.Fatal(err)
			}
			s.Resume(c.was)
			got := s.Status()
			if got.State != c.want {
				t.Fatalf("state is %s, want %s", got.State, c.want)
			}
			if c.want == Bound && (got.Since != c.was.Since || got.Expires != c.was.Expires || got.Client != c.was.Client) {
				t.Errorf("status is %+v", got)
			}
		})
	}
	s, err := NewServer(listenOn(t, newTap(t)), testLease(), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Resume(changed(func(s *Status) { s.Expires = time.Now().Add(50 * time.Millisecond) }))
	await(t, s, "the end of the lease", func(s Status) bool { return s.State == None })
}
