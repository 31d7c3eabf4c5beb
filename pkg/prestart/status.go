package prestart

import (
	"context"
	"errors"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// Status is what is: in the kernel, and in the process that serves.
type Status struct {
	Prepared   bool              `json:"prepared"`
	Server     ServerStatus      `json:"server"`
	Interfaces []InterfaceStatus `json:"interfaces"`
	// Lost are interfaces that are prepared without a record, if there is no
	// record at all.
	Lost []*prepare.LostError `json:"lost,omitempty"`
}

// ServerStatus tells of the process that serves.
type ServerStatus struct {
	Alive bool   `json:"alive"`
	Error string `json:"error,omitempty"` // why it is not
	*control.Status
}

// InterfaceStatus is one prepared pod interface.
type InterfaceStatus struct {
	prepare.Network
	Links []LinkStatus `json:"links"`
	// Differences are what is not as planned.
	Differences []prepare.Difference `json:"differences,omitempty"`
	// None: nobody serves, or there is nothing to lease.
	Lease        *lease.Status `json:"lease,omitempty"`
	Lease6       *lease.Status `json:"lease6,omitempty"`
	Router       *ra.Status    `json:"router,omitempty"`
	LeaseUnknown bool          `json:"leaseUnknown,omitempty"`
	Unwatched    string        `json:"unwatched,omitempty"`
	// Omitted is what the pod has and the VM does not get. Where nobody serves, it is
	// what a server without settings of its own would leave out.
	Omitted []discover.Omission `json:"omitted,omitempty"`
	// Counters are the port guard's; GuardError says why there are none.
	Counters   []prepare.GuardCounter `json:"guardCounters,omitempty"`
	GuardError string                 `json:"guardError,omitempty"`
	// ChecksumFilter is whether the kernel has it at the tap; if not,
	// ChecksumFilterReason says why.
	ChecksumFilter       bool   `json:"checksumFilter"`
	ChecksumFilterReason string `json:"checksumFilterReason,omitempty"`
}

// LinkStatus is one link of a prepared interface as the kernel has it now.
type LinkStatus struct {
	Name    string   `json:"name"`
	Exists  bool     `json:"exists"`
	Up      bool     `json:"up"`
	Carrier bool     `json:"carrier"` // of the tap: a VM has it open
	Master  string   `json:"master,omitempty"`
	MAC     mac.Addr `json:"mac,omitempty"`
	MTU     int      `json:"mtu,omitempty"`
}

// Status looks at the kernel and asks the process that serves. It changes
// nothing. A pod that is not prepared is no error.
func (h Hook) Status(ctx context.Context) (Status, error) {
	h, err := h.located()
	if err != nil {
		return Status{}, err
	}
	var status Status
	err = in(h.Netns, func() error {
		plans, err := h.prepared()
		_, isLost := errors.AsType[*prepare.LostError](err)
		if (isLost || errors.Is(err, ErrNotPrepared)) && len(h.Interfaces) == 0 {
			status.Lost, err = prepare.ReadLost(h.StateDir)
			return err
		}
		if err != nil {
			return err
		}
		now, err := discover.ReadInterfaces()
		if err != nil {
			return err
		}
		differences, err := prepare.Differences(plans...)
		if err != nil {
			return err
		}
		status.Prepared = true
		d, err := h.Lease.hasDefaultRoute(nicsOf(plans))
		if err != nil {
			return err
		}
		for _, p := range plans {
			i := InterfaceStatus{Network: p.Network(), Links: linksOf(p, now), Omitted: h.leaseOf(p.Interface.Name).leases(p.NIC(), discover.Pod{}, d).omitted}
			i.addDifferences(differences)
			i.Counters, err = p.GuardCounters()
			if err != nil { // the rest can be told without privileges
				i.GuardError = err.Error()
			}
			if i.ChecksumFilter, i.ChecksumFilterReason, err = p.ChecksumFilter(); err != nil {
				return err
			}
			status.Interfaces = append(status.Interfaces, i)
		}
		return nil
	})
	if err != nil {
		return Status{}, err
	}
	status.add(h.client().Status(ctx))
	return status, nil
}

// add adds what the serving process said, or why it said nothing.
func (s *Status) add(session control.Status, err error) {
	if err != nil {
		s.Server.Error = err.Error()
		return
	}
	for n := range s.Interfaces {
		i := &s.Interfaces[n]
		served := session.Of(i.Name)
		i.addDifferences(served.Differences)
		i.Omitted = served.Omitted
		i.Lease, i.Lease6, i.Router, i.LeaseUnknown = served.Lease, served.Lease6, served.Router, served.LeaseUnknown
		i.Unwatched = served.Unwatched
	}
	session.Interfaces = nil // they are in their places
	s.Server = ServerStatus{Alive: true, Status: &session}
}

// addDifferences adds those of the interface that are not known yet.
func (i *InterfaceStatus) addDifferences(differences []prepare.Difference) {
	for _, d := range differences {
		if d.Interface == i.Name && !slices.Contains(i.Differences, d) {
			i.Differences = append(i.Differences, d)
		}
	}
}

func linksOf(p prepare.Plan, now []discover.Interface) []LinkStatus {
	var links []LinkStatus
	for _, name := range []string{p.Bridge.Uplink, p.Bridge.Name, p.Tap.Name, p.Interface.Name} {
		l := LinkStatus{Name: name}
		for _, in := range now {
			if in.Name == name {
				l = LinkStatus{Name: name, Exists: true, Up: in.Up, Carrier: in.Carrier, Master: in.Master, MAC: in.MAC, MTU: in.MTU}
			}
		}
		links = append(links, l)
	}
	return links
}
