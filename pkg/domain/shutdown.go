//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"libvirt.org/go/libvirt"
)

const (
	// libvirt itself gives QEMU 10 s after SIGTERM and 5 s after SIGKILL, and
	// more with devices of the host (virProcessKillPainfullyDelay).
	destroyTime = 45 * time.Second
	// A libvirt that does not even tell its version within this time does nothing else, either.
	answerTime = 5 * time.Second
	// A guest that boots, or restarts, does not hear that it is asked.
	askAgainTime = 10 * time.Second
)

// Shutdown asks the guest to shut down, by ACPI or its agent, every ten seconds, and
// destroys the domain if it has not when ctx ends: at once, without asking, if ctx has ended
// already. A domain that is paused is resumed for that, and a guest that sleeps is woken.
// If libvirt is at a save, dump, snapshot or migration of the domain it waits for the end of
// that; a domain that still is at the deadline of ctx is left to it, which is an error. A ctx
// that is canceled has it destroyed.
//
// Without an error the domain has stopped; [VM.Wait] returns why. The error wraps
// [ErrDisconnected] if the connection has ended, and [ErrNoAnswer] if libvirt answers
// nothing: then nobody could ask or destroy it.
func (v *VM) Shutdown(ctx context.Context) error {
	if v.hasStopped() { // what has its name now may be another VM
		return nil
	}
	if v.isDisconnected() {
		return v.lost
	}
	asked := time.Now()
	why, err := "it was not asked to shut down: the context has ended", ctx.Err()
	for err == nil && !v.hasStopped() {
		if why, err = v.ask(ctx); err == nil {
			why, err = "it was asked to shut down and has not", await(ctx, v, time.After(askAgainTime))
		}
	}
	switch {
	case v.hasStopped():
		return nil
	case v.isDisconnected():
		return v.lost
	}
	late, cancel := v.whileAnswering(context.WithoutCancel(ctx))
	defer cancel()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		if work := v.work(late); work != "" {
			return fmt.Errorf("shut down domain %s on %s: it is left to libvirt, which is at a %s of it: virsh -c '%[2]s' domjobabort %[1]s ends that, and destroy %[1]s the domain", v.name, v.uri, work)
		}
	}
	v.log.Warn("destroying the domain", "domain", v.name, "why", why, "after", time.Since(asked).Round(time.Millisecond), "cause", err)
	return v.destroy(late)
}

// ask has libvirt ask the guest to shut down, which it does only while the domain runs.
// It tells why it could not.
func (v *VM) ask(ctx context.Context) (why string, err error) {
	for resumed := false; !v.hasStopped(); {
		state, reason, err := v.state(ctx)
		pause, isPaused := pauses[reason]
		switch {
		case errors.Is(err, libvirt.ERR_NO_DOMAIN):
			return "", nil
		case err != nil:
			return "libvirt does not tell its state", err
		case state == libvirt.DOMAIN_CRASHED:
			return "its guest has crashed", errors.New("on_crash has it kept")
		case state == libvirt.DOMAIN_PAUSED && isPaused && !resumed:
			v.log.Info("resuming the domain, which is paused: else its guest can't shut down", "domain", v.name, "paused", pause)
			why, err = "it is paused, and libvirt can't resume it", v.call(ctx, (*libvirt.Domain).Resume)
			resumed = err == nil
		case state == libvirt.DOMAIN_PMSUSPENDED && !resumed:
			v.log.Info("waking the guest, which sleeps: else it can't shut down", "domain", v.name)
			why, err = "its guest sleeps, and libvirt can't wake it", v.call(ctx, func(d *libvirt.Domain) error { return d.PMWakeup(0) })
			resumed = err == nil
		case state == libvirt.DOMAIN_PAUSED, state == libvirt.DOMAIN_PMSUSPENDED, state == libvirt.DOMAIN_SHUTDOWN:
			why, err = "it does not run, so its guest can't be asked to shut down", await(ctx, v, v.changed)
		default:
			why, err = "libvirt can't ask it to shut down", v.call(ctx, (*libvirt.Domain).Shutdown)
			if err == nil {
				return "", nil
			}
		}
		if errors.Is(err, libvirt.ERR_OPERATION_INVALID) { // it is in another state by now
			err = await(ctx, v, v.changed)
		}
		if err != nil && !errors.Is(err, libvirt.ERR_OPERATION_TIMEOUT) { // of a wait for what libvirt does with the domain
			return why, err
		}
	}
	return "", nil
}

// pauses are those that are not a part of what libvirt is doing, as virsh words them.
var pauses = map[int]string{
	int(libvirt.DOMAIN_PAUSED_UNKNOWN):       "unknown",
	int(libvirt.DOMAIN_PAUSED_USER):          "user",
	int(libvirt.DOMAIN_PAUSED_IOERROR):       "I/O error",
	int(libvirt.DOMAIN_PAUSED_WATCHDOG):      "watchdog",
	int(libvirt.DOMAIN_PAUSED_FROM_SNAPSHOT): "from snapshot",
	int(libvirt.DOMAIN_PAUSED_CRASHED):       "crashed",
	int(libvirt.DOMAIN_PAUSED_API_ERROR):     "api error",
}

// works are what would be lost with the domain, by how libvirt names its job.
var works = map[libvirt.DomainJobOperationType]string{
	libvirt.DOMAIN_JOB_OPERATION_SAVE:          "save",
	libvirt.DOMAIN_JOB_OPERATION_DUMP:          "dump",
	libvirt.DOMAIN_JOB_OPERATION_SNAPSHOT:      "snapshot",
	libvirt.DOMAIN_JOB_OPERATION_MIGRATION_OUT: "migration",
}

// work is what libvirt is at with the domain, of these; empty: nothing, or it is not known.
func (v *VM) work(ctx context.Context) string {
	var job *libvirt.DomainJobInfo
	err := v.call(ctx, func(d *libvirt.Domain) (err error) {
		job, err = d.GetJobStats(0)
		return err
	})
	if err != nil || job.Type == libvirt.DOMAIN_JOB_NONE {
		return ""
	}
	return works[job.Operation]
}

// state is the domain's, with its reason.
func (v *VM) state(ctx context.Context) (libvirt.DomainState, int, error) {
	var state libvirt.DomainState
	var reason int
	err := v.call(ctx, func(d *libvirt.Domain) (err error) {
		state, reason, err = d.GetState()
		return err
	})
	if err != nil { // it may yet be answered
		return libvirt.DOMAIN_NOSTATE, 0, err
	}
	return state, reason, nil
}

// await waits for c, unless the domain's end is known before.
func await[T any](ctx context.Context, v *VM, c <-chan T) error {
	select {
	case <-c:
	case <-v.stopped:
	case <-v.disconnected:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// destroy ends the domain without asking.
func (v *VM) destroy(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, destroyTime, fmt.Errorf("not within %s", destroyTime))
	defer cancel()
	err := v.call(ctx, (*libvirt.Domain).Destroy)
	if err == nil || errors.Is(err, libvirt.ERR_OPERATION_INVALID) || errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		err = v.Wait(ctx) // for the event: it is there, or on its way
	}
	switch {
	case v.hasStopped():
		return nil
	case v.isDisconnected():
		return v.lost
	}
	return fmt.Errorf("destroy domain %s on %s: %w: it may run on: virsh -c '%[2]s' destroy %[1]s ends it", v.name, v.uri, err)
}

// whileAnswering is ctx until libvirt is known to answer nothing, as one that is frozen.
func (v *VM) whileAnswering(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		asked, done := context.WithTimeout(ctx, answerTime)
		defer done()
		err := v.call(asked, func(*libvirt.Domain) error {
			_, err := v.conn.GetLibVersion()
			return err
		})
		if errors.Is(err, context.DeadlineExceeded) {
			v.silent.Store(true)
			cancel(fmt.Errorf("not within %s", answerTime))
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}
