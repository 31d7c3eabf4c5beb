package prestart

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/dhcp"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/domain"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/forward"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// complete is h with its defaults, and with the directory in which the state of its
// network namespace is.
func (h Hook) complete() (_ Hook, err error) {
	h.Log = cmp.Or(h.Log, slog.New(slog.DiscardHandler))
	if h.Domain != nil {
		d := *h.Domain
		d.URI = cmp.Or(d.URI, "qemu:///system")
		d.StartTimeout = cmp.Or(d.StartTimeout, DefaultStartTimeout)
		d.ShutdownTimeout = cmp.Or(d.ShutdownTimeout, DefaultShutdownTimeout)
		h.Domain = &d
	}
	for _, path := range []*string{&h.Netns, &h.StateDir, &h.OutputDir} {
		if *path == "" || filepath.IsAbs(*path) {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil { // a session's process may go elsewhere, as a daemon does
			return h, err
		}
	}
	h.StateDir, h.namespace, err = statedir.Locate(h.Netns, h.StateDir, prepare.DefaultStateDir)
	return h, err
}

// client asks the process that serves the pod.
func (h Hook) client() control.Client { return control.Client{Netns: h.Netns, StateDir: h.StateDir} }

// inPod calls f in the pod's network namespace, with what is valid and complete of h.
// On error there is no result.
func inPod[T any](h Hook, f func(Hook) (T, error)) (result T, err error) {
	if err = h.Validate(); err == nil {
		h, err = h.complete()
	}
	if err == nil {
		err = in(h.Netns, func() (err error) {
			result, err = f(h)
			return err
		})
	}
	if err != nil {
		return *new(T), err
	}
	return result, nil
}

// Validate tells what is wrong with h whatever the pod is, all of it at once. The
// other methods begin with it, Restore with what it uses; not so Plug, Unplug, HandOver and
// InNetns, which use little of h.
func (h Hook) Validate() error {
	errs := []error{h.checkInterfaces(), notNegative("timeout", h.Timeout)}
	errs = append(errs, forward.Validate(h.Forwards), h.Network.Validate(), prepare.CheckDatapath(h.Network.Datapath), h.Lease.Validate(), domain.CheckModel(h.Model), h.checkPerInterface())
	if len(h.Interfaces) > 0 {
		errs = append(errs, h.checkNamed(h.Interfaces), h.checkShared(h.Interfaces), h.Lease.checkDefaultRoute(h.Interfaces))
	}
	if d := h.Domain; d != nil {
		_, err := domain.Name(d.XML)
		errs = append(errs, err, notNegative("start timeout", d.StartTimeout), notNegative("shutdown timeout", d.ShutdownTimeout))
	}
	return errors.Join(errs...)
}

func (h Hook) checkInterfaces() error {
	seen := map[string]bool{}
	for _, name := range h.Interfaces {
		if err := guest.CheckName(name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("interface %s is named twice", name)
		}
		seen[name] = true
	}
	return nil
}

func notNegative(what string, d time.Duration) error {
	if d < 0 {
		return fmt.Errorf("%s %s is negative", what, d)
	}
	return nil
}

// Validate tells what is wrong with the settings whatever the CNI gave: a name that no
// host can have, and what the DHCP server would refuse of a lease that is well otherwise.
func (s LeaseSettings) Validate() error {
	var nameErr error
	if s.Hostname != "" {
		nameErr = guest.CheckHostname(s.Hostname)
	}
	return errors.Join(nameErr, dhcp.Lease{
		MAC: mac.Addr{2, 0, 0, 0, 0, 1}, Address: netip.MustParsePrefix("192.0.2.2/24"), Server: netip.MustParseAddr("192.0.2.1"),
		Duration: s.Duration, TFTPServer: s.TFTPServer, BootFiles: s.BootFiles, Options: s.Options,
	}.Validate())
}

// checkLeases tells, before anything is changed, why the servers would refuse what
// they are to tell the VM.
func (h Hook) checkLeases(plans []prepare.Plan, pod discover.Pod) error {
	nics := nicsOf(plans)
	d, err := h.Lease.hasDefaultRoute(nics)
	if err != nil {
		return err
	}
	for _, n := range nics {
		if err := h.leaseOf(n.Interface).leases(n, pod, d).check(); err != nil {
			return fmt.Errorf("plan %s: %w", n.Interface, err)
		}
	}
	return nil
}
