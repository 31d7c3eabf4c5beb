// Package check looks from the guest's side of a tap whether a guest gets its
// network: does a server answer, does the gateway.
package check

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// ErrTapInUse means that a VM, or another check, has the tap open.
var ErrTapInUse = errors.New("the tap is in use: a VM or another check has it open")

// timeout is how long a check waits for all its answers.
const timeout = 5 * time.Second

// UnansweredError is that no server on the tap answered the guest.
type UnansweredError struct{ Err error }

func (e *UnansweredError) Error() string { return e.Err.Error() }
func (e *UnansweredError) Unwrap() error { return e.Err }

// Report is what a guest on the tap would have seen. Times are in seconds from the
// moment the tap was opened; 0: not seen.
type Report struct {
	Interface  string     `json:"interface"`
	Tap        string     `json:"tap"`
	Address    netip.Addr `json:"address,omitzero"`  // what DHCP offered
	Address6   netip.Addr `json:"address6,omitzero"` // what DHCPv6 offered
	Gateway    netip.Addr `json:"gateway,omitzero"`  // what was resolved
	GatewayMAC mac.Addr   `json:"gatewayMAC,omitempty"`
	Router6    netip.Addr `json:"router6,omitzero"` // the IPv6 router that was resolved
	Router6MAC mac.Addr   `json:"router6MAC,omitempty"`
	Note       string     `json:"note,omitempty"` // what was not tried, and why

	Forwarding float64 `json:"forwardingAfterSeconds"`           // frames pass between tap and pod network
	Offered    float64 `json:"offerAfterSeconds,omitempty"`      // by DHCP
	Offered6   float64 `json:"offer6AfterSeconds,omitempty"`     // by DHCPv6
	Resolved   float64 `json:"resolvedAfterSeconds,omitempty"`   // the gateway
	Advertised float64 `json:"advertisedAfterSeconds,omitempty"` // the IPv6 router
	Resolved6  float64 `json:"resolved6AfterSeconds,omitempty"`  // the IPv6 router

	opened time.Time
}

// Check opens the tap of a NIC as a VM does, in the network namespace of the calling
// thread, and tries all that the NIC says a guest gets there. ready blocks until
// frames pass between tap and pod network; nil: they do at once. It takes 5 seconds
// at most. The error wraps [ErrTapInUse] if somebody has the tap, and
// [UnansweredError] if no server answers.
func Check(ctx context.Context, n guest.NIC, ready func(context.Context) error) (Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not within %s", timeout))
	defer cancel()
	r := Report{Interface: n.Interface, Tap: n.Tap, opened: time.Now()}
	announced := announce(n.Tap)
	defer announced.Close()
	g, err := openGuest(n)
	if err != nil {
		return r, err
	}
	defer g.Close()
	if ready != nil {
		if err := ready(ctx); err != nil {
			return r, err
		}
	}
	r.Forwarding = r.elapsed()
	if err := r.checkIPv6(ctx, g, n.IPv6); err != nil {
		return r, err
	}
	return r, r.checkIPv4(ctx, g, n.IPv4)
}

func (r *Report) elapsed() float64 { return time.Since(r.opened).Seconds() }

// checkIPv4 asks for a lease, and for the gateway, of the default route too,
// whichever NIC gets it: it is the way out of the interface's network.
func (r *Report) checkIPv4(ctx context.Context, g *guestEnd, v4 *guest.IPv4) (err error) {
	if v4 == nil {
		r.note("no IPv4 address, so no DHCPv4")
		return nil
	}
	if r.Address, err = g.discover(ctx); err != nil {
		return &UnansweredError{fmt.Errorf("DHCPDISCOVER on %s got no offer: %w", r.Tap, err)}
	}
	r.Offered = r.elapsed()
	if !v4.Gateway.IsValid() {
		r.note("the pod has no gateway to resolve")
		return nil
	}
	if r.GatewayMAC, err = g.resolve(ctx, v4.Address.Addr(), v4.Gateway); err != nil {
		return fmt.Errorf("resolve the gateway %s by ARP on %s (DHCP works): %w", v4.Gateway, r.Interface, err)
	}
	r.Gateway, r.Resolved = v4.Gateway, r.elapsed()
	return nil
}

// checkIPv6 asks for a lease and for the router, and for the router's MAC.
func (r *Report) checkIPv6(ctx context.Context, g *guestEnd, v6 *guest.IPv6) (err error) {
	if v6 == nil {
		return nil
	}
	if r.Address6, err = g.solicit(ctx); err != nil {
		return &UnansweredError{fmt.Errorf("DHCPv6 Solicit on %s got no offer: %w", r.Tap, err)}
	}
	r.Offered6 = r.elapsed()
	if err := g.solicitRouter(ctx, v6.Router); err != nil {
		return &UnansweredError{fmt.Errorf("router solicitation on %s got no advertisement: %w", r.Tap, err)}
	}
	r.Advertised = r.elapsed()
	router := v6.Router
	if router == nil {
		r.note("the pod has no IPv6 router to resolve")
		return nil
	}
	if r.Router6MAC, err = g.resolve(ctx, v6.Address.Addr(), router.LinkLocal); err != nil {
		return fmt.Errorf("resolve the router %s, which is %s to the VM, by neighbor discovery on %s (DHCPv6 works): %w", router.Gateway, router.LinkLocal, r.Interface, err)
	}
	r.Router6, r.Resolved6 = router.LinkLocal, r.elapsed()
	return nil
}

// note adds what was not tried.
func (r *Report) note(what string) {
	r.Note = strings.TrimPrefix(r.Note+"; "+what, "; ")
}
