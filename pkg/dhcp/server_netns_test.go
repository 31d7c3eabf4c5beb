package dhcp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// TestLeaseOverTap is a guest's life on a tap that was still down, and nobody's,
// when the server began to listen.
func TestLeaseOverTap(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease(), func(s *leaseServer) { s.DeclinePause = time.Second })
	await(t, s, "serving", func(s lease.Status) bool { return s.Serving && s.State == lease.None })
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)

	got, d := guest.ask(discover(
		dhcpv4.OptHostName("vm-a\x07"), dhcpv4.OptClassIdentifier("udhcp 1.35"), generic(optClientID, 1, 2, 3)))
	if messageType(got) != offer || d.DstMAC != guestMAC || d.Dst.Addr() != addrOf(address) || d.Src.Addr() != addrOf(server) {
		t.Fatalf("got %v from %v to %v", got, d.Src, d.Dst)
	}
	if d.SrcMAC != s.Conn.SourceFor(mac.Addr{}) {
		t.Errorf("sent from %x, want the tap's own address", d.SrcMAC)
	}
	status := await(t, s, "offered", is(lease.Offered))
	if status.Client != (lease.Client{Hostname: "vm-a?", VendorClass: "udhcp 1.35", ID: "010203"}) {
		t.Errorf("client is %+v", status.Client)
	}
	guest.dora()
	bound := await(t, s, "bound", is(lease.Bound))
	if !bound.Expires.IsZero() || bound.LastMessage.Type != "REQUEST" || bound.Received["DISCOVER"] != 2 || bound.Sent["ACK"] != 1 {
		t.Errorf("status is %+v", bound)
	}

	// A renewal goes to the server identifier's link address, which is not ours.
	renewal := frameFrom(with(request(), ciaddr(address)),
		guestMAC, "10.244.1.7:68", mac.Addr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}, "10.244.1.1:67")
	guest.send(renewal)
	if got, _ := guest.receive(patience); got == nil || messageType(got) != ack {
		t.Fatalf("renewal is answered with %v", got)
	}
	if again := await(t, s, "renewed", func(s lease.Status) bool { return s.Sent["ACK"] == 2 }); again.State != lease.Bound || again.Since != bound.Since {
		t.Errorf("renewal changed the state: %+v", again)
	}

	if got, d := guest.ask(request(dhcpv4.OptRequestedIPAddress(stale))); messageType(got) != nak || d.DstMAC != packet.Broadcast || d.Dst != everybody.Dst {
		t.Fatalf("a stale address is answered with %v to %v", got, d.Dst)
	}
	await(t, s, "refused", is(lease.None))

	guest.dora()
	guest.send(guestFrame(with(message(dhcpv4.MessageTypeRelease, dhcpv4.OptServerIdentifier(server)), ciaddr(address))))
	await(t, s, "released", func(s lease.Status) bool { return s.State == lease.None && s.Received["RELEASE"] == 1 })

	guest.dora()
	guest.send(guestFrame(message(dhcpv4.MessageTypeDecline, dhcpv4.OptServerIdentifier(server), dhcpv4.OptRequestedIPAddress(address))))
	await(t, s, "declined", func(s lease.Status) bool { return s.State == lease.None && s.Received["DECLINE"] == 1 })
	guest.send(guestFrame(discover()))
	await(t, s, "silent after decline", func(s lease.Status) bool { return s.Dropped[lease.DropDeclined] == 1 })
	for deadline := time.Now().Add(patience); ; { // as a client does: ask again
		guest.send(guestFrame(discover()))
		if got, _ := guest.receive(200 * time.Millisecond); got != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the address is not offered again")
		}
	}
	guest.dora()

	if _, err := json.Marshal(await(t, s, "bound", is(lease.Bound))); err != nil {
		t.Error(err)
	}
}

// TestOtherOfferChosen: a guest that took another server's offer has no lease of ours.
func TestOtherOfferChosen(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	guest.ask(discover())
	await(t, s, "offered", is(lease.Offered))
	guest.send(guestFrame(request(dhcpv4.OptServerIdentifier(foreign), dhcpv4.OptRequestedIPAddress(stale))))
	await(t, s, "other server", func(s lease.Status) bool { return s.State == lease.None && s.Dropped[lease.DropOtherServer] == 1 })
}

// TestServeEnds: with its context, at once, and leaves nothing running. It can
// be taken up again, and what came meanwhile is answered.
func TestServeEnds(t *testing.T) {
	tap := newTap(t)
	s := newServer(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	before := runtime.NumGoroutine()
	for range 20 {
		guest.send(guestFrame(discover()))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Serve(ctx) }()
		if got, _ := guest.receive(patience); got == nil {
			t.Fatal("no answer")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Status(); got.Serving {
		t.Error("still serving")
	}
	// One that is done counts until it has left its last function.
	for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
		}
	}
	if _, err := s.Wait(canceled(), is(lease.Bound)); !errors.Is(err, context.Canceled) {
		t.Errorf("wait ends with %v", err)
	}
	served := make(chan error)
	go func() { served <- s.Serve(t.Context()) }()
	if _, err := s.Wait(t.Context(), func(s lease.Status) bool { return s.Serving }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, lease.ErrClosed) {
		t.Errorf("closed while it serves: %v", err)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, lease.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if status := s.Status(); status.Serving || status.LastError != (lease.Failure{}) {
		t.Errorf("closed: %+v", status)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestProbeOverTap(t *testing.T) {
	tap := newTap(t)
	s := serveOn(t, tap, testLease())
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	guest.send(probe.Discover(guestMAC, xid))
	if got, _ := guest.receive(patience); got == nil || messageType(got) != offer {
		t.Fatalf("got %v", got)
	}
	status := await(t, s, "counted", func(s lease.Status) bool { return s.Sent["OFFER"] == 1 })
	if status.State != lease.None || status.Client != (lease.Client{}) || status.LastMessage != (lease.Message{}) || status.Received["DISCOVER"] != 1 {
		t.Errorf("the probe shows as the guest: %+v", status)
	}
	guest.dora()
	guest.send(probe.Discover(guestMAC, xid))
	if got, _ := guest.receive(patience); got == nil {
		t.Fatal("no answer")
	}
	if status := await(t, s, "counted", func(s lease.Status) bool { return s.Sent["OFFER"] == 3 }); status.State != lease.Bound {
		t.Errorf("the probe took the lease: %+v", status)
	}
}

// TestExpiry: a lease that is not renewed ends, and who waits learns of it.
func TestExpiry(t *testing.T) {
	tap := newTap(t)
	l := testLease()
	l.Duration = time.Second
	s := serveOn(t, tap, l)
	ip(t, "link set tap0 up")
	openGuest(t, tap).dora()
	bound := await(t, s, "bound", is(lease.Bound))
	ended := await(t, s, "expired", is(lease.None))
	if ended.Since != bound.Expires || !ended.Expires.IsZero() || bound.Expires.Sub(bound.Since).Round(time.Second) != time.Second {
		t.Errorf("was %+v, is %+v", bound, ended)
	}
}

// TestMisfitIsNoted: what the guest's message size leaves out is told once.
func TestMisfitIsNoted(t *testing.T) {
	tap := newTap(t)
	l := manyRoutes(100)
	l.Router = netip.Addr{}
	s := serveOn(t, tap, l)
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	guest.dora()
	guest.dora()
	if got := s.Status(); len(got.Notes) != 1 {
		t.Errorf("notes are %q", got.Notes)
	}
	got, _ := guest.ask(discover(generic(optMaxMessageSize, 0x05, 0xdc)))
	if len(got.Options[optRoutes]) != 800 {
		t.Errorf("%d bytes of routes in a large message", len(got.Options[optRoutes]))
	}
}

// TestRouterWithoutRoutes: a client that would take the routes gets the router
// in their place if there is no room for them.
func TestRouterWithoutRoutes(t *testing.T) {
	tap := newTap(t)
	serveOn(t, tap, manyRoutes(100))
	ip(t, "link set tap0 up")
	guest := openGuest(t, tap)
	list := generic(optParameters, optRoutes, optRouter)
	got, _ := guest.ask(discover(list))
	if got.Options[optRoutes] != nil || !bytes.Equal(got.Options[optRouter], server) {
		t.Errorf("a small message has %d bytes of routes and the router %x", len(got.Options[optRoutes]), got.Options[optRouter])
	}
	got, _ = guest.ask(discover(list, generic(optMaxMessageSize, 0x05, 0xdc)))
	if len(got.Options[optRoutes]) != 800 || got.Options[optRouter] != nil {
		t.Errorf("a large message has %d bytes of routes and the router %x", len(got.Options[optRoutes]), got.Options[optRouter])
	}
}
