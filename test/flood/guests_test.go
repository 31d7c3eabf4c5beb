package flood_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/podtest"
)

// How long a decent guest may take.
const (
	// Until it has its lease: what of the flood still waits in the kernel is
	// answered first, within the budget. It takes a second; a busy machine adds to that.
	patience = 30 * time.Second
	// Of a real client of IPv6 too are duplicate address detection of up to two
	// seconds (RFC 4862 §5.4), and a delay of up to one (RFC 8415 §18.2.1).
	patience6 = patience + 3*time.Second
	// Until it has its router, whose budget is a quarter of DHCP's.
	routerPatience = patience + 3*time.Second
)

// startGuest starts a guest with a system, and waits until the kernel lets the tap send,
// which takes its time where much else goes on.
func (s *server) startGuest(t *testing.T) *podtest.Guest {
	t.Helper()
	guest, err := podtest.StartGuest(t.Context(), s.pod.NS, s.tap, s.mac)
	if err != nil {
		t.Fatal(err)
	}
	if err := podtest.WaitSettled(t.Context(), s.pod.NS); err != nil {
		t.Fatal(errors.Join(err, guest.Close()))
	}
	return guest
}

// udhcpc seats a guest which must get its IPv4 lease at once.
func (s *server) udhcpc(t *testing.T) {
	t.Helper()
	guest := s.startGuest(t)
	defer guest.Close()
	start := time.Now()
	lease, err := guest.Udhcpc(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	took := time.Since(start)
	t.Logf("udhcpc's lease after %v", took.Round(time.Millisecond))
	if want := s.pod.IPv4.Addr().String(); lease["ip"] != want {
		t.Errorf("the client got %s, want %s", lease["ip"], want)
	}
	if took > patience {
		t.Errorf("the client's lease took %v", took)
	}
}

// dhclient6 seats a guest which must get its IPv6 lease, and by its kernel its
// router, at once.
func (s *server) dhclient6(t *testing.T) {
	t.Helper()
	guest := s.startGuest(t)
	defer guest.Close()
	start := time.Now()
	address, err := guest.Dhclient6(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	leased := time.Since(start)
	ctx, cancel := context.WithTimeout(t.Context(), giveUp)
	defer cancel()
	if err := podtest.WaitRouter(ctx, guest.NS); err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	took := time.Since(start)
	t.Logf("dhclient's lease after %v, a router after %v at most", leased.Round(time.Millisecond), took.Round(time.Millisecond))
	if want := s.pod.IPv6.Addr(); address != want {
		t.Errorf("the client got %v, want %v", address, want)
	}
	if took > patience6 {
		t.Errorf("the client's lease and router took %v", took)
	}
}
