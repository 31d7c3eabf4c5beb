//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"libvirt.org/go/libvirt"
)

// A VM is a running domain. Its methods may be called from any goroutine and any
// network namespace.
type VM struct {
	log        *slog.Logger
	uri        string
	name, uuid string
	embedded   bool
	netns      *os.File // where libvirt is called from; nil: anywhere
	conn       *libvirt.Connect
	dom        *libvirt.Domain
	lost       error // is told once the connection has ended
	events     []int // numbers of the event callbacks

	started                  bool       // owned by the event loop
	reason                   StopReason // is there once stopped is closed
	stopped                  chan struct{}
	disconnected             chan struct{}
	stopOnce, disconnectOnce sync.Once // guard the channels
	closed                   sync.Once
	changed                  chan struct{} // is told, without waiting, when the domain's state has changed
	silent                   atomic.Bool   // libvirt answers nothing

	using sync.Mutex // is held while dom is referenced, or let go of

	unplugging   sync.Mutex // is held by the one who unplugs
	removalsLock sync.Mutex
	removing     string    // alias of the device that is being removed; empty: none is
	removals     chan bool // is told whether it was
}

// Name is the domain's name.
func (v *VM) Name() string { return v.name }

// Embedded reports whether libvirt's driver runs in this process. Then ending the
// VM may take the privileges that starting it took; otherwise it takes none.
func (v *VM) Embedded() bool { return v.embedded }

// Wait returns when the domain has stopped: nil if the guest shut down, a
// [*StopError] if there is another reason. Any other error means that it is not
// known whether the domain runs: ctx or the connection has ended. It may
// be called again, and by more than one goroutine.
func (v *VM) Wait(ctx context.Context) error {
	select {
	case <-v.stopped:
	case <-v.disconnected:
	case <-ctx.Done():
	}
	switch {
	case v.hasStopped() && v.reason == ReasonShutdown:
		return nil
	case v.hasStopped():
		return &StopError{Domain: v.name, Reason: v.reason}
	case ctx.Err() != nil:
		return fmt.Errorf("wait for domain %s: %w", v.name, context.Cause(ctx))
	}
	return v.lost
}

func (v *VM) hasStopped() bool     { return isClosed(v.stopped) }
func (v *VM) isDisconnected() bool { return isClosed(v.disconnected) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Close ends the connection, and is the last call. A domain still running runs
// on: Shutdown comes before. Closing again does nothing.
func (v *VM) Close() error {
	var err error
	v.closed.Do(func() { err = v.close() })
	return err
}

func (v *VM) close() error {
	wasDisconnected := v.isDisconnected()
	v.using.Lock()
	v.onDisconnect(nil, libvirt.CONNECT_CLOSE_REASON_CLIENT)
	v.using.Unlock()
	ctx, cancel := context.WithTimeoutCause(context.Background(), undoTime, fmt.Errorf("not within %s", undoTime))
	defer cancel()
	unanswered := v.silent.Load()
	if unanswered {
		cancel() // it was waited for already
	}
	err := call(ctx, v.netns, func() error {
		if v.dom != nil {
			_ = v.dom.Free() // only a reference, and ours
		}
		return v.disconnect()
	}, func() {})
	if wasDisconnected || unanswered {
		err = nil // libvirt can't be told any more
	}
	if v.netns != nil {
		err = errors.Join(err, v.netns.Close())
	}
	if err != nil {
		return fmt.Errorf("close connection to %s: %w", v.uri, plain(err))
	}
	return nil
}

// call calls f, which may be left behind when ctx ends.
func (v *VM) call(ctx context.Context, f func(*libvirt.Domain) error) error {
	if err := v.reference(); err != nil {
		return err
	}
	err := call(ctx, v.netns, func() error {
		defer v.dom.Free()
		err := f(v.dom)
		if alive, aliveErr := v.conn.IsAlive(); err != nil && aliveErr == nil && !alive { // the event may be yet to come
			v.onDisconnect(nil, libvirt.CONNECT_CLOSE_REASON_ERROR)
			return ErrDisconnected
		}
		return err
	}, func() {})
	return plain(err)
}

// reference keeps the domain's handle though Close is called meanwhile.
func (v *VM) reference() error {
	v.using.Lock()
	defer v.using.Unlock()
	if v.isDisconnected() {
		return ErrDisconnected
	}
	if err := v.dom.Ref(); err != nil {
		return fmt.Errorf("reference domain %s: %w", v.name, plain(err))
	}
	return nil
}

// onEvent is called by the event loop with the events of all domains. Names are
// unique while a domain lives, so what follows our own start concerns us.
func (v *VM) onEvent(_ *libvirt.Connect, dom *libvirt.Domain, e *libvirt.DomainEventLifecycle) {
	if name, err := dom.GetName(); err != nil || name != v.name {
		return
	}
	select {
	case v.changed <- struct{}{}:
	default: // it is to be told already
	}
	switch e.Event {
	case libvirt.DOMAIN_EVENT_STARTED:
		v.started = true
	case libvirt.DOMAIN_EVENT_CRASHED:
		v.log.Warn("guest panicked", "domain", v.name)
	case libvirt.DOMAIN_EVENT_STOPPED:
		if !v.started {
			return // one of that name which was there before
		}
		reason := cmp.Or(stopReasons[libvirt.DomainEventStoppedDetailType(e.Detail)], ReasonUnknown)
		if reason == ReasonFromSnapshot && dom.Ref() == nil {
			go v.afterSnapshot(dom)
			return
		}
		v.stop(reason)
	}
}

// afterSnapshot tells whether the domain, which was stopped to be reverted to a snapshot,
// runs on from there: not if the snapshot is of one that did not run.
func (v *VM) afterSnapshot(dom *libvirt.Domain) {
	defer dom.Free()
	var err error
	for again := true; again; again = errors.Is(err, libvirt.ERR_OPERATION_TIMEOUT) {
		_, err = dom.MemoryStats(1, 0) // it waits, for some time, until the job of the domain has ended that this is
	}
	active, err := dom.IsActive()
	switch {
	case err == nil && active:
		v.log.Info("domain reverted to a snapshot: it runs on", "domain", v.name)
	case err == nil, errors.Is(err, libvirt.ERR_NO_DOMAIN):
		v.stop(ReasonFromSnapshot)
	default: // it is not known
		v.onDisconnect(nil, libvirt.CONNECT_CLOSE_REASON_ERROR)
	}
}

// stop says that the domain has stopped.
func (v *VM) stop(reason StopReason) {
	v.stopOnce.Do(func() {
		v.reason = reason
		v.log.Info("domain stopped", "domain", v.name, "reason", v.reason)
		close(v.stopped)
	})
}

// onDisconnect is called by the event loop when the connection has ended, with
// libvirtd or because we closed it.
func (v *VM) onDisconnect(*libvirt.Connect, libvirt.ConnectCloseReason) {
	v.disconnectOnce.Do(func() { close(v.disconnected) })
}

// stopReasons has libvirt's details of the event; any other is ReasonUnknown.
var stopReasons = map[libvirt.DomainEventStoppedDetailType]StopReason{
	libvirt.DOMAIN_EVENT_STOPPED_SHUTDOWN:      ReasonShutdown,
	libvirt.DOMAIN_EVENT_STOPPED_DESTROYED:     ReasonDestroyed,
	libvirt.DOMAIN_EVENT_STOPPED_CRASHED:       ReasonCrashed,
	libvirt.DOMAIN_EVENT_STOPPED_MIGRATED:      ReasonMigrated,
	libvirt.DOMAIN_EVENT_STOPPED_SAVED:         ReasonSaved,
	libvirt.DOMAIN_EVENT_STOPPED_FAILED:        ReasonFailed,
	libvirt.DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT: ReasonFromSnapshot,
}
