package domain

import (
	"errors"
	"fmt"
)

// A StopReason is why a domain is not running any more
// (virDomainEventStoppedDetailType).
type StopReason string

// The reasons libvirt knows. A guest which powered itself off, or was asked to by
// [VM.Shutdown] and did, is ReasonShutdown.
const (
	ReasonShutdown     StopReason = "shutdown"
	ReasonDestroyed    StopReason = "destroyed"
	ReasonCrashed      StopReason = "crashed" // the guest panicked
	ReasonMigrated     StopReason = "migrated"
	ReasonSaved        StopReason = "saved"
	ReasonFailed       StopReason = "failed" // QEMU died
	ReasonFromSnapshot StopReason = "stopped by a snapshot"
	ReasonUnknown      StopReason = "stopped"
)

// A StopError is what [VM.Wait] returns if the domain stopped for another reason
// than that the guest shut down.
type StopError struct {
	Domain string
	Reason StopReason
}

func (e *StopError) Error() string {
	return fmt.Sprintf("domain %s: %s", e.Domain, e.Reason)
}

// A ConnectError says that libvirt at the URI can't be used.
type ConnectError struct {
	URI string
	Err error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.URI, e.Err) }
func (e *ConnectError) Unwrap() error { return e.Err }

var (
	// ErrRunning means that a domain of that name runs already.
	ErrRunning = errors.New("a domain of that name is running")
	// ErrNotRunning means that no domain runs which could be taken over.
	ErrNotRunning = errors.New("no such domain runs")
	// ErrDisconnected means that the connection to libvirt has ended, as when libvirtd has:
	// the domain may run on, and [TakeOver] then takes it over.
	ErrDisconnected = errors.New("the connection to libvirt has ended")
	// ErrNoAnswer means that libvirt was asked, and has not answered in time: it may yet do
	// what it was asked for.
	ErrNoAnswer = errors.New("no answer from libvirt")
)

// ErrNotReleased means that a guest has not released a NIC that it was asked to.
var ErrNotReleased = errors.New("the guest has not released the NIC")
