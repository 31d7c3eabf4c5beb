package prestart

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/check"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Check looks from the guest's side of the tap of each prepared interface: does
// DHCP answer, does the gateway resolve, for each of IPv4 and IPv6 that the guest
// gets. No guest may have the tap.
func (h Hook) Check(ctx context.Context) (reports []check.Report, err error) {
	if h, err = h.located(); err != nil {
		return reports, err
	}
	err = in(h.Netns, func() error {
		plans, err := h.prepared()
		if err != nil {
			return err
		}
		for _, p := range plans {
			report, err := checkPlan(ctx, p, func() (control.Status, error) {
				return h.client().Status(context.WithoutCancel(ctx))
			})
			if err != nil {
				return fmt.Errorf("check %s: %w", p.Interface.Name, err)
			}
			reports = append(reports, report)
		}
		return nil
	})
	return reports, err
}

// checkPlan acts in the current network namespace. Where nothing answers, the error
// says what the server knows of that.
func checkPlan(ctx context.Context, p prepare.Plan, ask func() (control.Status, error)) (check.Report, error) {
	start := time.Now()
	report, err := check.Check(ctx, p.NIC(), p.WaitForwarding)
	if _, ok := errors.AsType[*check.UnansweredError](err); !ok {
		return report, err
	}
	status, askErr := ask()
	if errors.Is(askErr, control.ErrNobodyServes) {
		return report, fmt.Errorf("%w: %w: start a server, with the same state directory", err, control.ErrNobodyServes)
	}
	served := status.Of(p.Interface.Name)
	var failures []lease.Failure
	for _, lease := range []*lease.Status{served.Lease, served.Lease6} {
		if lease != nil {
			failures = append(failures, lease.LastError)
		}
	}
	if served.Router != nil {
		failures = append(failures, served.Router.LastError)
	}
	for _, failure := range failures {
		if failure.Error != "" && failure.At.After(start) {
			err = fmt.Errorf("%w: the server could not: %s", err, failure.Error)
		}
	}
	return report, err
}
