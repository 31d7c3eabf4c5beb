package prestart

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// ErrTapInUse means that a VM, or another check, sits on the tap.
var ErrTapInUse = errors.New("the tap is in use: a VM or another check has it open")

// CheckTimeout is how long a check waits for an answer.
const CheckTimeout = 5 * time.Second

// CheckReport is what a guest on the tap would have seen. Durations are from
// the moment the tap was opened.
type CheckReport struct {
	Interface  string        `json:"interface"`
	Tap        string        `json:"tap"`
	Forwarding time.Duration `json:"-"`                 // frames pass between tap and pod network
	Offer      time.Duration `json:"-"`                 // 0: no DHCP is served here
	Address    netip.Addr    `json:"address,omitzero"`  // what was offered
	Offer6     time.Duration `json:"-"`                 // by DHCPv6; 0: none is served here
	Address6   netip.Addr    `json:"address6,omitzero"` // what was offered by it
	Gateway    netip.Addr    `json:"gateway,omitzero"`  // what was resolved
	GatewayMAC mac.Addr      `json:"gatewayMAC,omitempty"`
	Resolved   time.Duration `json:"-"`
	Router6    netip.Addr    `json:"router6,omitzero"` // what the advertisement and the neighbour discovery were of
	Router6MAC mac.Addr      `json:"router6MAC,omitempty"`
	Advertised time.Duration `json:"-"`              // by router advertisement; 0: there is no IPv6
	Resolved6  time.Duration `json:"-"`              // 0: the pod has no IPv6 router
	Note       string        `json:"note,omitempty"` // what was not tried, and why
}

// Check looks from the guest's seat, through the tap of each prepared
// interface: does DHCP answer, does the gateway resolve, for each of IPv4 and
// IPv6 that the guest gets. No guest may sit there.
func (h Hook) Check(ctx context.Context) (reports []CheckReport, err error) {
	if h, err = h.located(); err != nil {
		return reports, err
	}
	err = in(h.Netns, func() error {
		plans, err := h.prepared()
		if err != nil {
			return err
		}
		for _, p := range plans {
			start := time.Now()
			report, err := checkPlan(ctx, p)
			if isUnserved(err) {
				session, askErr := h.askServer(ctx)
				err = whyUnserved(err, session, askErr, p, start)
			}
			if err != nil {
				return fmt.Errorf("check %s: %w", p.Interface.Name, err)
			}
			reports = append(reports, report)
		}
		return nil
	})
	return reports, err
}

// checkPlan acts in the current network namespace.
func checkPlan(ctx context.Context, p prepare.Plan) (CheckReport, error) {
	ctx, cancel := context.WithTimeout(ctx, CheckTimeout)
	defer cancel()
	report := CheckReport{Interface: p.Interface.Name, Tap: p.Tap.Name}
	start := time.Now()
	inUse, err := p.InUse()
	if err == nil && inUse {
		err = fmt.Errorf("open tap %s: %w", p.Tap.Name, ErrTapInUse)
	}
	if err != nil {
		return report, err
	}
	announced := announceCheck(p)
	defer announced.Close()
	seat, err := takeSeat(p)
	if err != nil {
		return report, err
	}
	defer seat.Close()
	if err := p.WaitForwarding(ctx); err != nil {
		return report, err
	}
	report.Forwarding = time.Since(start)
	if err := report.checkIPv6(ctx, seat, p, start); err != nil {
		return report, err
	}
	return report, report.checkIPv4(ctx, seat, p, start)
}

// checkIPv4 asks for a lease, and for the gateway that the guest is told of.
func (r *CheckReport) checkIPv4(ctx context.Context, seat *seat, p prepare.Plan, start time.Time) error {
	address, leased := p.Interface.IPv4()
	if !leased {
		r.note("no IPv4 address, so no DHCPv4")
		return nil
	}
	offer, err := seat.discover(ctx)
	if err != nil {
		return unserved{fmt.Errorf("DHCPDISCOVER on %s got no offer: %w", p.Tap.Name, err)}
	}
	r.Offer = time.Since(start)
	r.Address, _ = netip.AddrFromSlice(offer.YourIPAddr.To4())
	// Of the default route too, whichever NIC gets it: it is the way out of the
	// interface's network.
	gateway, ok := p.Interface.GatewayIPv4()
	if !ok {
		r.note("the pod has no gateway to resolve")
		return nil
	}
	mac, err := seat.resolve(ctx, address.Addr(), gateway)
	if err != nil {
		return fmt.Errorf("ARP for the gateway %s by %s (DHCP did answer): %w", gateway, p.Bridge.Uplink, err)
	}
	r.Gateway, r.GatewayMAC, r.Resolved = gateway, mac, time.Since(start)
	return nil
}

// checkIPv6 asks for a lease and for the router, and for the router's MAC.
func (r *CheckReport) checkIPv6(ctx context.Context, seat *seat, p prepare.Plan, start time.Time) (err error) {
	if p.IPv6 == nil {
		return nil
	}
	if r.Address6, err = seat.solicit(ctx); err != nil {
		return unserved{fmt.Errorf("DHCPv6 Solicit on %s got no offer: %w", p.Tap.Name, err)}
	}
	r.Offer6 = time.Since(start)
	speaker, _ := routerOf(p)
	if err := seat.solicitRouter(ctx, speaker); err != nil {
		return unserved{fmt.Errorf("router solicitation on %s got no advertisement of %s: %w", p.Tap.Name, speaker, err)}
	}
	r.Advertised = time.Since(start)
	router := p.IPv6.Router
	if router == nil {
		r.note("the pod has no IPv6 router to resolve")
		return nil
	}
	asked := []netip.Addr{router.LinkLocal}
	if g := p.Interface.Gateway6; router.Answered && g != nil { // the kernel answers, and the gateway has yet to show itself
		asked = append(asked, g.Address)
	}
	for _, address := range asked {
		mac, err := seat.resolve6(ctx, p.IPv6.Address.Addr(), address)
		if err != nil {
			return fmt.Errorf("neighbour solicitation for the router %s by %s (DHCPv6 did answer): %w", address, p.Bridge.Uplink, err)
		}
		if mac != router.MAC {
			return fmt.Errorf("the router %s is at %s by %s, but the pod was prepared for %s: restore and prepare it again",
				address, mac, p.Bridge.Uplink, router.MAC)
		}
	}
	r.Router6, r.Router6MAC, r.Resolved6 = router.LinkLocal, router.MAC, time.Since(start)
	return nil
}

// note adds what was not tried.
func (r *CheckReport) note(what string) {
	r.Note = strings.TrimPrefix(r.Note+"; "+what, "; ")
}
