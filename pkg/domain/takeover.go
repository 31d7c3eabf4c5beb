//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"libvirt.org/go/libvirt"
)

// TakeOver connects to libvirt at the URI as [Start] does, and returns the domain of the
// XML's name, which runs already and has a NIC on each of the taps: as a program left it
// that was killed, or whose connection has ended. The caller closes the VM.
//
// The domain runs on as it is; of the XML nothing but its name is used. The error wraps
// [ErrNotRunning] if no domain of that name runs, or one without these NICs.
func TakeOver(ctx context.Context, log *slog.Logger, uri string, xml []byte, taps ...string) (*VM, error) {
	v, err := newVM(log, uri, xml)
	if err != nil {
		return nil, err
	}
	v.started = true // what stops from now on under that name is this one
	if err := v.begin(ctx, func() error { return v.find(ctx, taps) }); err != nil {
		return nil, err
	}
	v.log.Info("domain taken over", "domain", v.name, "uuid", v.uuid, "uri", uri)
	return v, nil
}

// find looks the domain up.
func (v *VM) find(ctx context.Context, taps []string) error {
	if err := v.conn.Ref(); err != nil { // for the thread, should it be left behind
		return fmt.Errorf("reference the connection to %s: %w", v.uri, plain(err))
	}
	var dom *libvirt.Domain
	err := call(ctx, v.netns, func() (err error) {
		defer v.conn.Close()
		dom, err = v.lookUp(taps)
		return err
	}, func() { _ = dom.Free() })
	if err != nil {
		return fmt.Errorf("take over domain %s on %s: %w", v.name, v.uri, plain(err))
	}
	v.dom = dom
	return nil
}

func (v *VM) lookUp(taps []string) (*libvirt.Domain, error) {
	dom, err := v.conn.LookupDomainByName(v.name)
	if errors.Is(err, libvirt.ERR_NO_DOMAIN) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	if err = hasTaps(dom, taps); err == nil {
		v.uuid, err = dom.GetUUIDString()
	}
	if err != nil {
		_ = dom.Free()
		return nil, err
	}
	return dom, nil
}

// hasTaps is an error if the domain does not run, with a NIC on each of the taps.
func hasTaps(dom *libvirt.Domain, taps []string) error {
	if !isRunning(dom) {
		return ErrNotRunning
	}
	xml, err := dom.GetXMLDesc(0)
	if err != nil {
		return err
	}
	doc, err := parse([]byte(xml))
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, iface := range find(doc.Root(), "devices", "interface") {
		has[value(iface, "dev", "target")] = true
	}
	for _, tap := range taps {
		if !has[tap] {
			return fmt.Errorf("%w: a domain of that name runs, without a NIC on tap %s", ErrNotRunning, tap)
		}
	}
	return nil
}
