//go:build !linux || !cgo || !libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"log/slog"
)

var errNoLibvirt = errors.New("this build has no libvirt support: build with cgo and -tags libvirt_dlopen")

// What is documented here is what a build with libvirt does, as documentation is made
// without its tag: in this one Start returns an error, and there are no VMs.

// A VM is a running domain. Its methods may be called from any goroutine and any
// network namespace.
type VM struct{}

// Start connects to libvirt at the URI and starts the domain. The caller closes
// the VM.
//
// libvirt is dialled from the network namespace of the calling thread. QEMU is
// started there too if the URI has the driver run in this process
// (qemu:///embed?root=DIR, one process per DIR), else in that of the libvirtd
// found. The caller, if it has entered a namespace, must have locked its thread.
//
// The domain is transient: libvirt drops it when it stops, so nothing is left
// to undefine, even if this process is killed. QEMU outlives a killed process, and
// [TakeOver] takes it over: with the embedded driver, from the same DIR. If libvirt has a
// domain of that name and UUID defined but not running, that definition stays as it is;
// if there is a managed save of it, nothing is started, and the error says what to do.
//
// On error there is no domain and no connection left. It wraps [ErrRunning] if one of that
// name runs already, which [TakeOver] is for. If ctx ends while
// libvirt does not answer, Start returns nevertheless; one thread stays with
// libvirt until it does, and undoes what comes of it.
func Start(ctx context.Context, log *slog.Logger, uri string, xml []byte) (*VM, error) {
	return nil, errNoLibvirt
}

// TakeOver connects to libvirt at the URI as [Start] does, and returns the domain of the
// XML's name, which runs already and has a NIC on each of the taps: as a program left it
// that was killed, or whose connection has ended. The caller closes the VM.
//
// The domain runs on as it is; of the XML nothing but its name is used. The error wraps
// [ErrNotRunning] if no domain of that name runs, or one without these NICs.
func TakeOver(ctx context.Context, log *slog.Logger, uri string, xml []byte, taps ...string) (*VM, error) {
	return nil, errNoLibvirt
}

// Name is the domain's name.
func (*VM) Name() string { return "" }

// Embedded reports whether libvirt's driver runs in this process. Then ending the
// VM may take the privileges that starting it took; otherwise it takes none.
func (*VM) Embedded() bool { return false }

// Wait returns when the domain has stopped: nil if the guest shut down, a
// [*StopError] if there is another reason. Any other error means that it is not
// known whether the domain runs: ctx or the connection has ended. It may
// be called again, and by more than one goroutine.
func (*VM) Wait(context.Context) error { return errNoLibvirt }

// Plug gives the running domain one more NIC, whose tap must exist, and returns when
// the domain has it: what its guest makes of it is the guest's. Only the running domain
// is changed, and no definition that libvirt may have of it. On error the domain does not
// have the NIC, unless the error wraps [ErrNoAnswer]: then it may get it yet. Once libvirt was
// asked, it is the domain's also if ctx ends before the answer: only the guest could release
// it again.
func (*VM) Plug(context.Context, NIC) error { return errNoLibvirt }

// Unplug asks the guest to release a NIC, which is the domain's interface on that tap,
// or else of that alias, and returns when the domain does not have it any more, nor its
// tap open: at once if it has none such. The guest has until ctx ends; the error wraps
// [ErrNotReleased] if it refuses or does not answer. Then the domain has the NIC. It may
// still release it later.
func (*VM) Unplug(context.Context, NIC) error { return errNoLibvirt }

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
func (*VM) Shutdown(context.Context) error { return errNoLibvirt }

// Close ends the connection, and is the last call. A domain still running runs
// on: Shutdown comes before. Closing again does nothing.
func (*VM) Close() error { return errNoLibvirt }
