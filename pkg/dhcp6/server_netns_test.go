package dhcp6

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// patience bounds all waiting for what must happen.
const patience = 30 * time.Second

// newServer is a server that does not serve yet.
func newServer(t testing.TB, pod *podtest.NS, l Lease) *leaseServer {
	t.Helper()
	var s lease.Server
	if err := pod.Do(func() (err error) {
		s, err = NewServer("tap0", l, nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s.(*leaseServer)
}

// serveOn serves the lease for the test's time.
func serveOn(t testing.TB, pod *podtest.NS, l Lease, change ...func(*leaseServer)) *leaseServer {
	t.Helper()
	s := newServer(t, pod, l)
	for _, f := range change {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, lease.ErrGone) && !errors.Is(err, lease.ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return s
}

// guestEnd is the guest's side of the tap.
type guestEnd struct {
	t testing.TB
	podtest.NIC
}

func openGuest(t testing.TB, pod *podtest.NS) guestEnd {
	return guestEnd{t, podtest.NewNIC(t, pod, "tap0")}
}

// receive returns the next answer within a time, or nil.
func (s guestEnd) receive(within time.Duration) (m *dhcpv6.Message, d packet.UDP) {
	s.t.Helper()
	s.Receive(within, func(frame []byte) bool {
		var err error
		m, d, err = readReply(frame)
		return err == nil
	})
	return m, d
}

// ask sends a message and returns what the answer says, which must come.
func (s guestEnd) ask(m *dhcpv6.Message) string {
	s.t.Helper()
	s.Send(frameOf(m))
	got, _ := s.receive(patience)
	if got == nil {
		s.t.Fatalf("no answer to %v", m.MessageType)
	}
	return transcript(got, nil)
}

func await(t testing.TB, s *leaseServer, what string, until func(lease.Status) bool) lease.Status {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	status, err := s.Wait(ctx, until)
	if err != nil {
		t.Fatalf("%s: %v\n%+v", what, err, status)
	}
	return status
}

// TestLeaseOverTap is a guest's life.
func TestLeaseOverTap(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, testLease(), func(s *leaseServer) { s.DeclinePause = time.Second })
	guest := openGuest(t, pod)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := s.Events(ctx)
	next := func(want lease.EventType) lease.Event {
		t.Helper()
		select {
		case e := <-events:
			if e.Type != want || e.At.IsZero() || e.Address != netip.PrefixFrom(address, 128) {
				t.Fatalf("got %+v, want %s", e, want)
			}
			return e
		case <-time.After(patience):
			t.Fatalf("no event, want %s", want)
		}
		return lease.Event{}
	}

	guest.Send(probe.Solicit(guestMAC, dhcpv6.TransactionID{1})) // makes no event
	if got, d := guest.receive(patience); got == nil || d.Dst.Addr() != guestLocal || d.DstMAC != guestMAC || d.Src.Addr() != gateway {
		t.Fatalf("got %v from %v", got, d)
	}
	guest.ask(message(solicit, na(1), generic(dhcpv6.OptionFQDN, []byte("\x01\x04vm-a")...)))
	if e := next(lease.EventOffered); e.Client.Hostname != "vm-a" {
		t.Errorf("client is %+v", e.Client)
	}
	guest.ask(toUs(request, na(1, address)))
	next(lease.EventBound)
	bound := await(t, s, "bound", func(s lease.Status) bool { return s.State == lease.Bound })
	if !bound.Expires.IsZero() || bound.LastMessage.Type != "REQUEST" || bound.Received["SOLICIT"] != 2 || bound.Sent["REPLY"] != 1 || len(bound.Dropped) != 0 {
		t.Errorf("status is %+v", bound)
	}
	guest.ask(toUs(renew, na(1, address)))
	next(lease.EventRenewed)
	guest.ask(message(rebind, na(1, address)))
	next(lease.EventRenewed)
	guest.ask(message(confirm, na(1, address)))
	next(lease.EventBound)
	guest.ask(message(inform))
	guest.ask(message(confirm, na(1, stale)))
	next(lease.EventRefused)
	guest.ask(message(rebind, na(1, stale)))
	next(lease.EventBound) // and the other taken back
	guest.ask(toUs(release, na(1, stale)))
	guest.ask(toUs(release, na(1, address)))
	next(lease.EventReleased)
	guest.ask(message(solicit, na(1), generic(dhcpv6.OptionRapidCommit)))
	next(lease.EventBound)

	guest.ask(toUs(decline, na(1, address)))
	next(lease.EventDeclined)
	guest.Send(frameOf(message(solicit, na(1))))
	await(t, s, "silent after decline", func(s lease.Status) bool { return s.Dropped[lease.DropDeclined] == 1 && s.State == lease.None })
	for deadline := time.Now().Add(patience); ; { // as a client does: ask again
		guest.Send(frameOf(message(solicit, na(1))))
		if got, _ := guest.receive(200 * time.Millisecond); got != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the address is not offered again")
		}
	}
	next(lease.EventOffered)
}

// TestConfirmExtendsNothing: a guest that confirms its address has it no longer than
// it was given (RFC 8415 section 18.3.3).
func TestConfirmExtendsNothing(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	l := testLease()
	l.Valid = time.Hour
	s := serveOn(t, pod, l)
	guest := openGuest(t, pod)
	bound := func(s lease.Status) bool { return s.State == lease.Bound }
	guest.ask(message(solicit, na(1), generic(dhcpv6.OptionRapidCommit)))
	ends := await(t, s, "bound", bound).Expires
	guest.ask(message(confirm, na(1, address)))
	if got := await(t, s, "confirmed", func(s lease.Status) bool { return s.Sent["REPLY"] == 2 }).Expires; !got.Equal(ends) {
		t.Errorf("the lease ended at %v, and at %v once it was confirmed", ends, got)
	}
	guest.ask(toUs(renew, na(1, address)))
	if got := await(t, s, "renewed", func(s lease.Status) bool { return s.Sent["REPLY"] == 3 }).Expires; !got.After(ends) {
		t.Errorf("the lease ended at %v, and at %v once it was renewed", ends, got)
	}
}

// TestDropped: what gets no answer is told by its reason.
func TestDropped(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	s := serveOn(t, pod, testLease())
	guest := openGuest(t, pod)
	plain := frameOf(message(solicit, na(1)))
	damaged := bytes.Clone(plain)
	damaged[packet.UDP6Len] ^= 1
	for _, frame := range [][]byte{
		damaged,
		frameOf(message(solicit), func(d *packet.UDP) { d.SrcMAC = mac.Addr{2, 9} }),
		frameOf(message(solicit), func(d *packet.UDP) { d.Src = netip.AddrPortFrom(stale, clientPort) }),
		frameOf(message(dhcpv6.MessageTypeRelayForward)),
		frameOf(message(99)),
		frameOf(message(solicit, na(1)), func(d *packet.UDP) { d.Dst = netip.AddrPortFrom(gateway, serverPort) }),
		frameOf(message(request, generic(dhcpv6.OptionServerID, 0, 3, 9), na(1))),
		frameOf(message(confirm, na(1))),
		frameOf(toUs(solicit)),
		append(bytes.Clone(plain), make([]byte, packet.MaxFrame)...),
		// Not even looked at:
		frameOf(message(solicit), func(d *packet.UDP) { d.Dst = netip.AddrPortFrom(allServers, 546) }),
		append(append(bytes.Clone(plain[:12]), 0x81, 0, 0, 5), plain[12:]...),
	} {
		guest.Send(frame)
	}
	status := await(t, s, "dropped", func(s lease.Status) bool {
		return s.Dropped[lease.DropBadChecksum] == 1 && s.Dropped[lease.DropOtherSource] == 2 && s.Dropped[lease.DropRelayed] == 1 && s.Dropped[lease.DropUnexpectedType] == 1 &&
			s.Dropped[lease.DropUnicast] == 1 && s.Dropped[lease.DropOtherServer] == 1 && s.Dropped[lease.DropNoAddress] == 1 && s.Dropped[lease.DropMalformed] == 1 && s.Dropped[lease.DropBadFrame] == 1
	})
	if len(status.Dropped) != 9 || status.Received["OTHER"] != 1 {
		t.Errorf("status is %+v", status)
	}
	if o := status.OtherSource; o.MAC != (mac.Addr{2, 9}) || o.Want != guestMAC || o.Count != 1 {
		t.Errorf("asked with another MAC: %+v", o)
	}
	if got, _ := guest.receive(50 * time.Millisecond); got != nil {
		t.Errorf("answered: %v", got)
	}
	guest.Send(frameOf(toUs(renew, na(1, address)), func(d *packet.UDP) {
		d.Src, d.Dst = netip.AddrPortFrom(address, clientPort), netip.AddrPortFrom(gateway, serverPort)
	}))
	if got, d := guest.receive(patience); got == nil || transcript(got, nil) != "REPLY UseMulticast" || d.Dst.Addr() != address {
		t.Errorf("to one server: got %v to %v", got, d.Dst)
	}
}

// TestFlood: a guest that sends without end gets no more than the budget, and
// service again once it stops.
func TestFlood(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	const perSecond, sent = 50, 10000
	s := serveOn(t, pod, testLease(), func(s *leaseServer) { s.SetBudget(perSecond) })
	guest := openGuest(t, pod)
	frame := frameOf(message(solicit, na(1)))
	start := time.Now()
	for range sent {
		guest.Send(frame)
	}
	status := await(t, s, "over budget", func(s lease.Status) bool { return s.Dropped[lease.DropOverBudget] > sent/2 })
	if got, most := float64(status.Received["SOLICIT"]), perSecond*(time.Since(start).Seconds()+1)+1; got > most {
		t.Errorf("%v looked at within %v, want at most %v", got, time.Since(start), most)
	}
	for deadline := time.Now().Add(patience); ; {
		guest.Send(frameOf(message(inform)))
		got, _ := guest.receive(100 * time.Millisecond)
		for got != nil && got.MessageType != dhcpv6.MessageTypeReply {
			got, _ = guest.receive(100 * time.Millisecond)
		}
		if got != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no service after the flood: %+v", s.Status())
		}
	}
}

// TestResume: a server after a restart knows of the lease, and takes back an address
// that the guest has of one before.
func TestResume(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	l := fullLease()
	l.Valid = time.Second
	s := serveOn(t, pod, l)
	guest := openGuest(t, pod)
	guest.ask(message(solicit, na(1), generic(dhcpv6.OptionRapidCommit)))
	await(t, s, "expired", func(s lease.Status) bool { return s.LastEvent.Type == lease.EventExpired && s.State == lease.None })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	next := testLease()
	next.Address, next.Search = stale, []string{"bad domain"}
	s = serveOn(t, pod, next)
	if got := guest.ask(toUs(renew, na(1, address), oro(0))); got != "REPLY na1(fd00:10:244:9::9 ∞/∞, fd00:10:244:1::7 0s/0s, ∞ ∞)" {
		t.Errorf("got %s", got)
	}
	status := await(t, s, "bound", func(s lease.Status) bool { return s.State == lease.Bound })
	if status.Address.Addr() != stale || len(status.Notes) != 1 {
		t.Errorf("status is %+v", status)
	}
	again := newServer(t, pod, next)
	again.Resume(status)
	if got := again.Status(); got.State != lease.Bound || got.Client != status.Client {
		t.Errorf("after a restart: %+v", got)
	}
}

// TestRefusal: the log says which address a guest wants instead of its own.
func TestRefusal(t *testing.T) {
	t.Parallel()
	pod := podtest.NewTapNS(t)
	var log podtest.Buffer
	s := serveOn(t, pod, testLease(), func(s *leaseServer) { s.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	guest := openGuest(t, pod)
	for i, m := range []*dhcpv6.Message{
		toUs(request, na(1, stale)),
		message(confirm, na(1, address, stale)),
		message(confirm, ta(1, stale)),
	} {
		guest.ask(m)
		await(t, s, "refused", func(s lease.Status) bool {
			return s.Sent["REPLY"] == uint64(i+1) && s.LastEvent.Type == lease.EventRefused
		})
	}
	if text := log.String(); strings.Count(text, "requested=["+stale.String()+"]\n") != 3 {
		t.Errorf("of %v the log says\n%s", stale, text)
	}
}
