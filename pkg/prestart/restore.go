package prestart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/internal/tun"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Restore puts the interfaces, all that are prepared if none are named, back as
// the CNI left them. It returns their names. While a VM has a tap open nothing is
// changed, and the error wraps [check.ErrTapInUse], unless the Hook says Force.
func (h Hook) Restore(ctx context.Context) ([]string, error) {
	// What a VM would be given is no reason not to put the pod back.
	h = Hook{Netns: h.Netns, StateDir: h.StateDir, Interfaces: h.Interfaces, Timeout: h.Timeout, Force: h.Force, Log: h.Log}
	return inPod(h, func(h Hook) ([]string, error) {
		pid := statedir.ServerOf(h.namespace)
		restored, all, err := h.restore(ctx)
		if err == nil && all && len(restored) > 0 && pid > 0 { // else it serves what stays prepared
			h.Log.Warn("a server still runs for the restored pod; it ends because its tap is gone", "pid", pid)
		}
		return restored, err
	})
}

// restore acts in the current network namespace. It tells whether nothing is prepared
// any more.
func (h Hook) restore(ctx context.Context) (restored []string, all bool, err error) {
	waiting, cancel := h.waiting(ctx)
	defer cancel()
	store, err := h.openStore(waiting)
	if err != nil {
		return nil, false, err
	}
	defer store.Close()
	recorded, err := store.Plans(h.Log)
	if err != nil {
		return nil, false, err
	}
	var errs []error
	for _, p := range recorded {
		if name := p.Interface.Name; len(h.Interfaces) == 0 || slices.Contains(h.Interfaces, name) {
			restored = append(restored, name)
			if !h.Force {
				errs = append(errs, h.unused(ctx, p.NIC()))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, false, err
	}
	if err := prepare.Restore(ctx, h.Log, store, h.Interfaces...); err != nil {
		return nil, false, err
	}
	if err := h.checkMachine(); len(recorded) == 0 && err != nil { // another network was meant
		return nil, false, err
	}
	return restored, len(restored) == len(recorded), removeMemories(store)
}

// restoreAfter is Restore at a session's end, in the current network namespace. A
// VM has a time to leave the tap.
func (h Hook) restoreAfter(ctx context.Context, plans []prepare.Plan, patience time.Duration) error {
	h.Interfaces, h.Force = namesOf(nicsOf(plans)), false
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, p := range plans {
		if inUse, err := tun.InUse(p.NIC().Tap); err != nil || !inUse || patience == 0 {
			continue
		}
		h.Log.Info("waiting for the VM to close the tap", "tap", p.NIC().Tap, "atMost", patience)
		if err := tun.WaitUnused(waiting, p.NIC().Tap); err != nil {
			break // restore says what is in use
		}
	}
	if h.Elevate != nil {
		if err := h.Elevate(); err != nil {
			return err
		}
	}
	restoring, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreTime)
	defer cancel()
	if _, _, err := h.restore(restoring); err != nil {
		return fmt.Errorf("the pod stays prepared: %w", err)
	}
	return nil
}
