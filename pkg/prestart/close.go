package prestart

import (
	"context"
	"errors"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Wait blocks until the VM has stopped, a server has failed or ctx ends. It
// returns nil if the guest shut down, a [*domain.StopError] if the VM ended
// otherwise, a [*ServeError] if a NIC that was there from the start is not served any
// more. Without a domain there is no good end but that of ctx; when the session is
// closed, it is [ErrSessionClosed].
func (s *Session) Wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.done, func() { cancel(s.ended()) })() //nolint:contextcheck // s.done is the session's, not the caller's
	if vm := s.domain(); vm != nil {
		return vm.Wait(ctx)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// Close asks the VM, if there is one, to shut down, and destroys it when that
// takes longer than the Domain's ShutdownTimeout or ctx ends meanwhile. A ctx that
// has ended before, as that of the process usually has, leaves the guest its
// ShutdownTimeout. Then Close ends the servers and closes all sockets. The pod's
// network stays prepared, unless the Hook says RestoreAfter: then a VM that is not
// ours has [DefaultShutdownTimeout], or until ctx ends, to leave the tap, and the
// error wraps [check.ErrTapInUse] if it does not; another process that is at work on the
// pod has ten seconds. The error of a server that had
// failed is returned again. Only the first call does something; another waits for it.
func (s *Session) Close(ctx context.Context) (err error) {
	s.closing.Do(func() { err = s.close(ctx) })
	return err
}

func (s *Session) close(ctx context.Context) error {
	var errs []error
	if ctx.Err() != nil { // if it ends later, that ends all waiting
		ctx = context.WithoutCancel(ctx)
	}
	if vm := s.domain(); vm != nil {
		within := s.hook.Domain.ShutdownTimeout
		ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
		defer cancel()
		errs = append(errs, vm.Shutdown(ctx), vm.Close()) //nolint:contextcheck // Close takes none
	}
	if s.ended() != nil {
		errs = append(errs, s.ended())
	}
	s.cancel(ErrSessionClosed)
	s.setting <- struct{}{} // once a Plug or Unplug has ended
	defer s.leaveSet()
	if s.control != nil {
		s.control.Close()
	}
	s.running.Wait()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	var plans []prepare.Plan
	for _, n := range s.current() {
		errs = append(errs, n.close())
		if plan := n.plan.Load(); plan != nil {
			plans = append(plans, *plan)
		}
	}
	s.keeper.close()
	if s.restore && len(plans) > 0 {
		errs = append(errs, s.netns.do(func() error { return s.hook.restoreAfter(ctx, plans, DefaultShutdownTimeout) }))
	}
	if s.undo != nil {
		errs = append(errs, s.undo())
	}
	s.serving.Close() // not before: who serves from now on finds the pod as it stays
	s.netns.leave()
	s.plugging.leave()
	s.pinned.Close() // nil is closed already
	return errors.Join(errs...)
}
