package prestart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// Check looks from the guest's side of the tap of each prepared interface: does
// DHCP answer, does the gateway resolve, for each of IPv4 and IPv6 that the guest
// gets. No guest may have the tap.
func (h Hook) Check(ctx context.Context) ([]check.Report, error) {
	return inPod(h, func(h Hook) (reports []check.Report, err error) {
		plans, err := h.prepared()
		if err != nil {
			return nil, err
		}
		for _, p := range plans {
			report, err := checkNIC(ctx, p.NIC(), p.WaitForwarding, func() (control.Status, error) {
				return h.client().Status(context.WithoutCancel(ctx))
			})
			if err != nil {
				return nil, fmt.Errorf("check %s: %w", p.Interface.Name, err)
			}
			reports = append(reports, report)
		}
		return reports, nil
	})
}

// checkNIC acts in the current network namespace. Where nothing answers, the error
// says what the server, which is asked for its status, knows of that.
func checkNIC(ctx context.Context, n guest.NIC, ready func(context.Context) error, ask func() (control.Status, error)) (check.Report, error) {
	start := time.Now()
	report, err := check.Check(ctx, n, ready)
	if unanswered := (*check.UnansweredError)(nil); !errors.As(err, &unanswered) {
		return report, err
	}
	status, askErr := ask()
	if errors.Is(askErr, control.ErrNobodyServes) {
		return report, fmt.Errorf("%w: %w: start a server, with the same state directory", err, control.ErrNobodyServes)
	}
	served := status.Of(n.Interface)
	for _, l := range []*lease.Status{served.Lease, served.Lease6} {
		if l != nil && l.DeclinedUntil.After(start) {
			err = fmt.Errorf("%w: the VM has declined %s, since another host has it, and the server gives it to nobody until %s: take it from that host (arping -D on the node finds it), then check again",
				err, l.Address.Addr(), l.DeclinedUntil.Format(time.TimeOnly))
		}
	}
	for _, failure := range []lease.Failure{
		cmp.Or(served.Lease, new(lease.Status)).LastError, cmp.Or(served.Lease6, new(lease.Status)).LastError,
		cmp.Or(served.Router, new(ra.Status)).LastError,
	} {
		if failure.Error != "" && failure.At.After(start) {
			err = fmt.Errorf("%w: the server failed: %s", err, failure.Error)
		}
	}
	return report, err
}
