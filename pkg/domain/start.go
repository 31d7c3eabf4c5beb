//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"libvirt.org/go/libvirt"
)

// libvirt gets this long to undo what it was doing when the caller gave up.
const undoTime = 10 * time.Second

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
	v, err := newVM(log, uri, xml)
	if err != nil {
		return nil, err
	}
	if err := v.begin(ctx, func() error { return v.start(ctx, string(xml)) }); err != nil {
		return nil, err
	}
	v.log.Info("domain started", "domain", v.name, "uuid", v.uuid, "uri", uri)
	return v, nil
}

// begin connects to libvirt and gets the domain from there. Without it there is no
// connection left.
func (v *VM) begin(ctx context.Context, get func() error) error {
	if err := v.connect(ctx); err != nil {
		v.netns.Close()
		return err
	}
	if !v.embedded { // the connection stays in the namespace, wherever it is used
		v.netns.Close()
		v.netns = nil
	}
	if err := get(); err != nil {
		return errors.Join(err, v.Close()) //nolint:contextcheck // Close takes none
	}
	return nil
}

// newVM returns the domain in the XML, not yet connected.
func newVM(log *slog.Logger, uri string, xml []byte) (*VM, error) {
	name, err := Name(xml)
	if err != nil {
		return nil, err
	}
	netns, err := openNetns()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &VM{
		log: log, uri: uri, name: name, netns: netns,
		lost:    fmt.Errorf("domain %s on %s: %w, and the domain may run on: virsh -c '%s' destroy %s ends it", name, uri, ErrDisconnected, uri, name),
		stopped: make(chan struct{}), disconnected: make(chan struct{}), changed: make(chan struct{}, 1),
	}, nil
}

// connect opens the connection and listens to its events. The event loop must
// run before: the embedded driver starts nothing without it.
func (v *VM) connect(ctx context.Context) error {
	if err := runEvents(); err != nil {
		return err
	}
	err := call(ctx, v.netns, v.open, func() { _ = v.disconnect() })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return &ConnectError{v.uri, err}
	case errors.Is(err, libvirt.ERR_SYSTEM_ERROR):
		return &ConnectError{v.uri, fmt.Errorf("%w: is libvirtd running in this pod?", plain(err))}
	}
	return &ConnectError{v.uri, plain(err)}
}

func (v *VM) open() error {
	conn, err := libvirt.NewConnect(v.uri)
	if err != nil {
		return err
	}
	v.conn = conn
	// The URI it was opened with may be an alias of libvirt's configuration.
	uri, err := conn.GetURI()
	if err == nil {
		uri, _, _ = strings.Cut(uri, "?")
		v.embedded = strings.HasSuffix(uri, ":///embed")
		err = conn.RegisterCloseCallback(v.onDisconnect)
	}
	if err == nil {
		err = v.listen()
	}
	if err != nil {
		_ = v.disconnect()
	}
	return err
}

// listen has the event loop tell of all domains, since ours does not exist yet.
func (v *VM) listen() error {
	for _, register := range []func() (int, error){
		func() (int, error) { return v.conn.DomainEventLifecycleRegister(nil, v.onEvent) },
		func() (int, error) {
			return v.conn.DomainEventDeviceRemovedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemoved) {
				v.onRemoval(d, e.DevAlias, true)
			})
		},
		func() (int, error) {
			return v.conn.DomainEventDeviceRemovalFailedRegister(nil, func(_ *libvirt.Connect, d *libvirt.Domain, e *libvirt.DomainEventDeviceRemovalFailed) {
				v.onRemoval(d, e.DevAlias, false)
			})
		},
	} {
		id, err := register()
		if err != nil {
			return err
		}
		v.events = append(v.events, id)
	}
	return nil
}

// disconnect undoes open. A callback left registered would keep the connection.
func (v *VM) disconnect() error {
	var errs []error
	for _, id := range v.events {
		errs = append(errs, v.conn.DomainEventDeregister(id))
	}
	errs = append(errs, v.conn.UnregisterCloseCallback())
	_, err := v.conn.Close()
	return errors.Join(append(errs, err)...)
}

// start starts the domain. If ctx ends meanwhile, libvirt gets some time to undo
// what it was doing: a process that ends now would leave it running.
func (v *VM) start(ctx context.Context, xml string) error {
	longer, cancel := outlive(ctx, undoTime)
	defer cancel()
	if err := v.conn.Ref(); err != nil { // for the thread, should it be left behind
		return fmt.Errorf("reference the connection to %s: %w", v.uri, plain(err))
	}
	var dom *libvirt.Domain
	err := call(longer, v.netns, func() (err error) {
		defer v.conn.Close()
		dom, err = v.create(ctx, xml)
		return err
	}, func() { discard(dom) })
	if err != nil {
		return fmt.Errorf("start domain %s on %s: %w", v.name, v.uri, plain(err))
	}
	v.dom = dom
	return nil
}

func (v *VM) create(ctx context.Context, xml string) (*libvirt.Domain, error) {
	if old, err := v.conn.LookupDomainByName(v.name); err == nil {
		running := isRunning(old)
		saved, err := old.HasManagedSaveImage(0)
		_ = old.Free()
		switch {
		case running:
			return nil, fmt.Errorf("%w: end it with virsh -c '%s' destroy %s", ErrRunning, v.uri, v.name)
		case err == nil && saved: // if it were resumed later, its disks would have changed under it
			return nil, fmt.Errorf("libvirt has its saved state: resume it by virsh -c '%[1]s' start %[2]s, to be taken over, or drop that state by virsh -c '%[1]s' managedsave-remove %[2]s", v.uri, v.name)
		}
	}
	dom, err := v.conn.DomainCreateXML(xml, libvirt.DOMAIN_NONE)
	if err != nil {
		return nil, err
	}
	if v.uuid, err = dom.GetUUIDString(); err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		discard(dom)
		return nil, err
	}
	return dom, nil
}

// isRunning reports whether the domain runs. A QEMU driver that was killed, as the
// embedded one is with its process, takes the domain for running when it starts
// again, until it has tried to reach QEMU (qemuProcessReconnect). No event tells
// of the outcome if QEMU is dead, but the domain is locked for this (its job)
// meanwhile: a query waits for it.
func isRunning(dom *libvirt.Domain) bool {
	active, err := dom.IsActive()
	if err != nil || !active {
		return false
	}
	_, _ = dom.MemoryStats(1, 0) // an error is no matter: not every driver has it
	active, err = dom.IsActive()
	return err == nil && active
}

// discard ends a domain that nobody will wait for.
func discard(dom *libvirt.Domain) {
	_ = dom.Destroy()
	_ = dom.Free()
}

// outlive returns a context which ends that much later than ctx.
func outlive(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(d, func() { cancel(context.Cause(ctx)) })
	})
	return late, func() {
		stop()
		cancel(context.Canceled)
	}
}

// A failure is an error of libvirt which reads as libvirt words it, without its
// numbers.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

func plain(err error) error {
	var e libvirt.Error
	if !errors.As(err, &e) {
		return err
	}
	return &failure{strings.Replace(err.Error(), e.Error(), e.Message, 1), err}
}
