package prestart

import (
	"context"
	"maps"
	"os"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/control"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// Status is what is: in the kernel, and in the process that serves.
type Status struct {
	Prepared   bool              `json:"prepared"` // all that was asked about
	Server     ServerStatus      `json:"server"`
	Interfaces []InterfaceStatus `json:"interfaces"`
	// NotPrepared are those of the named interfaces that are not.
	NotPrepared []string `json:"notPrepared,omitempty"`
	// Unrecorded are interfaces that are prepared without a record, if not all that was
	// asked about is prepared with one.
	Unrecorded []*prepare.UnrecordedError `json:"unrecorded,omitempty"`
}

// ServerStatus tells of the process that serves.
type ServerStatus struct {
	Alive bool   `json:"alive"`
	Error string `json:"error,omitempty"` // why it is not
	*control.Status
}

// InterfaceStatus is one prepared pod interface; of one that is served without a record
// it has what is served alone. Where nobody serves, Omitted is what a server without
// settings of its own would leave out.
type InterfaceStatus struct {
	Interface
	control.Served
	Links []LinkStatus `json:"links"`
	// Counters are the port guard's; GuardError says why there are none.
	Counters   []prepare.GuardCounter `json:"guardCounters,omitempty"`
	GuardError string                 `json:"guardError,omitempty"`
	// Unreached are the aliases by which the pod does not reach the VM, and why.
	Unreached []string `json:"unreached,omitempty"`
	// ChecksumFilter is whether the kernel has it at the tap; if not,
	// ChecksumFilterReason says why.
	ChecksumFilter       bool   `json:"checksumFilter"`
	ChecksumFilterReason string `json:"checksumFilterReason,omitempty"`
}

// LinkStatus is one link of a prepared interface as the kernel has it now.
type LinkStatus struct {
	prepare.Link
	Exists  bool     `json:"exists"`
	Up      bool     `json:"up"`
	Carrier bool     `json:"carrier"` // of the tap: a VM has it open
	Master  string   `json:"master,omitempty"`
	MAC     mac.Addr `json:"mac,omitempty"`
	MTU     int      `json:"mtu,omitempty"`
}

// Status looks at the kernel and asks the process that serves. It changes
// nothing. A pod or an interface that is not prepared is no error.
func (h Hook) Status(ctx context.Context) (Status, error) {
	return inPod(h, func(h Hook) (status Status, err error) {
		recorded, err := prepare.ReadPlans(h.Log, h.StateDir)
		if err != nil {
			return status, err
		}
		plans, missing := choose(recorded, h.Interfaces)
		status.NotPrepared = missing
		if status.Prepared = len(plans) > 0 && len(status.NotPrepared) == 0; !status.Prepared {
			if status.Unrecorded, err = prepare.ReadUnrecorded(h.StateDir); err != nil {
				return status, err
			}
			status.Unrecorded = slices.DeleteFunc(status.Unrecorded, func(u *prepare.UnrecordedError) bool {
				return len(h.Interfaces) > 0 && !slices.Contains(status.NotPrepared, u.Interface)
			})
		}
		if status.Interfaces, err = h.look(plans); err != nil {
			return status, err
		}
		for i, of := range status.Interfaces {
			status.Interfaces[i].Omitted = withoutNICs(of.Omitted, namesOf(nicsOf(recorded)))
		}
		session, err := h.client().Status(ctx)
		status.add(h.Interfaces, session, err)
		return status, nil
	})
}

// look tells of prepared interfaces what the kernel has, in the current network
// namespace.
func (h Hook) look(plans []prepare.Plan) (all []InterfaceStatus, err error) {
	if len(plans) == 0 {
		return []InterfaceStatus{}, nil // which JSON has as a list
	}
	now, err := discover.ReadInterfaces()
	if err != nil {
		return nil, err
	}
	differences, err := prepare.Differences(plans...)
	if err != nil {
		return nil, err
	}
	d, err := h.Lease.hasDefaultRoute(nicsOf(plans))
	if err != nil {
		return nil, err
	}
	for _, p := range plans {
		name := p.Interface.Name
		i := InterfaceStatus{Interface: NewInterface(p), Links: linksOf(p, now), Served: control.Served{
			Name: name, Omitted: h.leaseOf(name).leases(p.NIC(), discover.Pod{}, d).omitted,
		}}
		i.addDifferences(differences)
		i.Counters, err = p.GuardCounters(nil)
		i.GuardError = textOf(err) // the rest can be told without privileges
		if i.ChecksumFilter, i.ChecksumFilterReason, err = p.ChecksumFilter(); err != nil {
			return nil, err
		}
		if i.Unreached, err = p.Unreached(); err != nil {
			return nil, err
		}
		all = append(all, i)
	}
	return all, nil
}

// add adds what the serving process said, of the named interfaces if some are, or why
// it said nothing.
func (s *Status) add(named []string, session control.Status, err error) {
	if err != nil {
		s.Server.Error = err.Error()
		return
	}
	elsewhere := false
	for _, served := range session.Interfaces {
		n := slices.IndexFunc(s.Interfaces, func(i InterfaceStatus) bool { return i.Name == served.Name })
		if n < 0 && len(named) > 0 && !slices.Contains(named, served.Name) {
			continue
		}
		if n < 0 { // it is served without a record
			n = len(s.Interfaces)
			s.Interfaces = append(s.Interfaces, InterfaceStatus{Interface: newInterface(guestSide(served)), Links: []LinkStatus{}})
		}
		if served.Apart {
			elsewhere = true
			s.Unrecorded = slices.DeleteFunc(s.Unrecorded, func(u *prepare.UnrecordedError) bool { return u.Interface == served.Name })
		}
		served.Guest = nil // it is in its place
		found := s.Interfaces[n].Differences
		s.Interfaces[n].Served = served
		s.Interfaces[n].addDifferences(found)
	}
	s.Prepared = s.Prepared || elsewhere && len(s.NotPrepared)+len(s.Unrecorded) == 0
	session.Interfaces = nil // they are in their places
	s.Server = ServerStatus{Alive: true, Status: &session}
}

// addDifferences adds those of the interface that are not known yet. Who serves it may
// know another remedy.
func (i *InterfaceStatus) addDifferences(differences []prepare.Difference) {
	for _, d := range differences {
		known := func(k prepare.Difference) bool { return k.What == d.What && k.Is == d.Is && k.Want == d.Want }
		if d.Interface == i.Name && !slices.ContainsFunc(i.Differences, known) {
			i.Differences = append(i.Differences, d)
		}
	}
}

func linksOf(p prepare.Plan, now []discover.Interface) []LinkStatus {
	return each(p.Links(), func(link prepare.Link) LinkStatus {
		for _, in := range now {
			if in.Name == link.Name {
				return LinkStatus{Link: link, Exists: true, Up: in.Up, Carrier: in.Carrier, Master: in.Master, MAC: in.MAC, MTU: in.MTU}
			}
		}
		return LinkStatus{Link: link}
	})
}

// Status is what only the session knows: how far it is, and what it serves.
func (s *Session) Status() control.Status {
	s.mu.Lock()
	started, vm, nics, notServed := s.started, s.vm, slices.Clone(s.nics), maps.Clone(s.notServed)
	s.mu.Unlock()
	status := control.Status{
		PID: os.Getpid(), Version: s.hook.Version, Since: s.since, Ready: !started.IsZero() && s.done.Err() == nil,
		PrepareSeconds: s.prepared.Sub(s.since).Seconds(), RecordError: s.keeper.recordError(), Interfaces: []control.Served{},
	}
	if !started.IsZero() {
		status.StartSeconds = started.Sub(s.since).Seconds()
	}
	if err := s.ended(); err != nil {
		status.Ended = err.Error()
	}
	if vm != nil {
		status.Domain = vm.Name()
	}
	for _, name := range slices.Sorted(maps.Keys(notServed)) {
		status.Ready = false
		status.Interfaces = append(status.Interfaces, control.Served{Name: name, Error: notServed[name].Error()})
	}
	for _, n := range nics {
		served := n.status()
		served.Omitted = withoutNICs(served.Omitted, namesOf(guestsOf(nics)))
		status.Ready = status.Ready && served.Error == "" && len(served.Differences) == 0
		status.Interfaces = append(status.Interfaces, served)
	}
	return status
}
