package control

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/ra"
)

// Status is what only the process that serves knows.
type Status struct {
	PID     int       `json:"pid"`
	Version string    `json:"version,omitempty"`
	Since   time.Time `json:"since"`
	Ready   bool      `json:"ready"` // a guest could boot, and the network is as planned
	// PrepareSeconds is how long it took to discover and prepare the network
	// (or to find it prepared), StartSeconds until a guest could boot.
	PrepareSeconds float64 `json:"prepareSeconds"`
	StartSeconds   float64 `json:"startSeconds,omitempty"`
	Domain         string  `json:"domain,omitempty"`
	// Ended is why the session serves no more, or is about to; empty: it serves.
	Ended string `json:"ended,omitempty"`
	// RecordError is why a record, without which an interface can't be put back, is
	// not on disk any more; empty: all are.
	RecordError string `json:"recordError,omitempty"`
	// Interfaces is nil only where it is said elsewhere: a server that serves none
	// says so.
	Interfaces []Served `json:"interfaces,omitzero"`
}

// Served is what is served on one pod interface.
type Served struct {
	Name string `json:"interface"`
	// Guest is what the VM gets of it, by an emulated NIC of the model; nil where it is
	// said elsewhere.
	Guest *guest.NIC `json:"guest,omitempty"`
	Model string     `json:"model,omitempty"`
	// Apart is whether its record is elsewhere: on the node, or with the program that
	// prepared it, where it is served without one.
	Apart bool `json:"apart,omitempty"`
	// Differences are what is not as planned.
	Differences []prepare.Difference `json:"differences,omitempty"`
	// Unwatched says of what a change would not be noticed, and why; empty: of
	// nothing.
	Unwatched string `json:"unwatched,omitempty"`
	// Error is why it is not served any more; empty: it is.
	Error string `json:"error,omitempty"`
	// None: there is nothing of the kind to serve.
	Lease  *lease.Status `json:"lease,omitempty"`  // DHCPv4
	Lease6 *lease.Status `json:"lease6,omitempty"` // DHCPv6
	Router *ra.Status    `json:"router,omitempty"`
	// LeaseUnknown is whether a VM had the tap when the server started, though
	// nothing was kept of its lease: whether the VM has one is not known until it
	// speaks, which with a lease that has no end it need not.
	LeaseUnknown bool `json:"leaseUnknown,omitempty"`
	// Omitted is what the pod has and the VM does not get.
	Omitted []discover.Omission `json:"omitted,omitempty"`
}

// Of returns what is served on the pod interface of that name; the zero value if
// nothing is.
func (s Status) Of(name string) Served {
	for _, i := range s.Interfaces {
		if i.Name == name {
			return i
		}
	}
	return Served{}
}

// NotReady says in one line why a guest could not boot or would not reach its
// network, and the way out; empty if it would.
func (s Status) NotReady() string {
	var words, remedies []string
	for _, i := range s.Interfaces {
		if i.Error != "" {
			words = append(words, i.Name+" is not served: "+i.Error)
		}
		for _, d := range i.Differences {
			words = append(words, i.Name+": "+d.String())
			if !slices.Contains(remedies, d.Remedy) {
				remedies = append(remedies, d.Remedy)
			}
		}
	}
	switch {
	case s.Ended != "":
		return strings.Join(append([]string{"the network is not served any more: " + s.Ended}, words...), ", ")
	case len(words) == 0 && s.Ready:
		return ""
	case len(words) == 0:
		return "the network is not ready yet"
	case len(remedies) == 0:
		return strings.Join(words, ", ")
	}
	return "the VM's network is not as planned: " + strings.Join(words, ", ") + ": " + strings.Join(remedies, "; ")
}

// NoLease says in one line which addresses a guest does not have, and why as far
// as is known; empty if it has those that [Client.Wait] waits for. A guest with
// static addresses never asks.
func (s Status) NoLease() string {
	var words []string
	for _, i := range s.Interfaces {
		l := cmp.Or(i.Lease, i.Lease6) // not every guest asks for an IPv6 address
		switch {
		case l == nil || l.IsHeld():
		case l.IsKept():
			words = append(words, fmt.Sprintf("%s: no VM has %s open (no carrier); the lease of %s is kept for one that is resumed", i.Name, l.Interface, l.Address))
		case l.LastMessage.Type == "" && i.LeaseUnknown:
			words = append(words, fmt.Sprintf("%s: it is unknown whether the guest on %s has %s: the VM started before this server, which found no saved lease; "+
				"have the guest's DHCP client renew, or restart the VM", i.Name, l.Interface, l.Address))
		default:
			words = append(words, i.Name+": "+noLease(*l))
		}
	}
	return strings.Join(words, "; ")
}

// lastSteps say why a lease is none after that step.
var lastSteps = map[lease.EventType]string{
	lease.EventRefused:  "it asked for another address, and was refused",
	lease.EventDeclined: "it declined the address, since another host uses it",
	lease.EventReleased: "it released the address",
	lease.EventExpired:  "the lease has expired",
}

func noLease(l lease.Status) string {
	guest := fmt.Sprintf("the guest on %s has not got %s", l.Interface, l.Address)
	other := l.OtherSource
	switch {
	case other.Count > 0 && !l.LastMessage.At.After(other.At):
		return fmt.Sprintf("%s: a guest with MAC %s asks for it (%d times), the VM's is %s: %s", guest, other.MAC, other.Count, other.Want, other.Remedy())
	case l.State == lease.Offered:
		return fmt.Sprintf("%s: it was offered, but the guest has not requested it; received %s", guest, lease.Counts(l.Received))
	case lastSteps[l.LastEvent.Type] != "":
		return fmt.Sprintf("%s: %s at %s", guest, lastSteps[l.LastEvent.Type], l.LastEvent.At.Format(time.TimeOnly))
	case l.LastMessage.Type != "":
		return fmt.Sprintf("%s: received %s, the last one at %s, dropped %s", guest, lease.Counts(l.Received), l.LastMessage.At.Format(time.TimeOnly), lease.Counts(l.Dropped))
	case len(l.Dropped) > 0:
		return fmt.Sprintf("%s: its messages were dropped: %s", guest, lease.Counts(l.Dropped))
	}
	return guest + ": it has not asked for it (is the VM running, with a DHCP client?)"
}
