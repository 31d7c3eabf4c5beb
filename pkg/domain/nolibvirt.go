//go:build !linux || !cgo || !libvirt_dlopen

package domain

import (
	"context"
	"errors"
	"log/slog"
)

var errNoLibvirt = errors.New("this build has no libvirt support: build with cgo and -tags libvirt_dlopen")

// A VM is a domain started by [Start], which this build can't.
type VM struct{}

// Start fails: this build has no libvirt support.
func Start(context.Context, *slog.Logger, string, []byte) (*VM, error) { return nil, errNoLibvirt }

// Name is the domain's name.
func (*VM) Name() string { return "" }

// Embedded is false: this build has no libvirt support.
func (*VM) Embedded() bool { return false }

// Wait fails: this build has no libvirt support.
func (*VM) Wait(context.Context) error { return errNoLibvirt }

// Plug fails: this build has no libvirt support.
func (*VM) Plug(context.Context, NIC) error { return errNoLibvirt }

// Unplug fails: this build has no libvirt support.
func (*VM) Unplug(context.Context, NIC) error { return errNoLibvirt }

// Shutdown fails: this build has no libvirt support.
func (*VM) Shutdown(context.Context) error { return errNoLibvirt }

// Close fails: this build has no libvirt support.
func (*VM) Close() error { return errNoLibvirt }
