package prestart

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// notYet is that what was waited for was not so when the context ended. It wraps
// why that ended, and why it was not so.
type notYet struct {
	condition string
	after     time.Duration
	cause     error
	why       error
}

func (e *notYet) Unwrap() []error { return []error{e.cause, e.why} }

func (e *notYet) Error() string {
	ended := e.cause.Error()
	if errors.Is(e.cause, context.DeadlineExceeded) {
		ended = "timed out after " + e.after.Round(10*time.Millisecond).String()
	}
	return fmt.Sprintf("wait for %s: %s: %s", e.condition, ended, e.why)
}

// missing returns the names of the links that are not there.
func missing(differences []prepare.Difference) []string {
	var names []string
	for _, d := range differences {
		if d.Is == prepare.Missing {
			names = append(names, d.What)
		}
	}
	return names
}

// NotReady says in one line why a guest could not boot or would not reach its
// network, and the way out; empty if it would.
func (s SessionStatus) NotReady() string {
	if len(s.Differences) == 0 && s.Ready {
		return ""
	}
	if len(s.Differences) == 0 {
		return "the network is not ready yet"
	}
	var words, remedies []string
	for _, d := range s.Differences {
		words = append(words, d.Interface+": "+d.String())
		if !slices.Contains(remedies, d.Remedy) {
			remedies = append(remedies, d.Remedy)
		}
	}
	return "the VM's network is not as planned: " + strings.Join(words, ", ") + ": " + strings.Join(remedies, "; ")
}

// NoLease says in one line which addresses a guest does not have, and why as far
// as is known; empty if it has those that Wait waits for. A guest with static
// addresses never asks.
func (s SessionStatus) NoLease() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(s.waitedFor())) {
		if l := s.waitedFor()[name]; l.State != journal.Bound {
			why := noLease(l)
			if l.LastMessage.Type == "" && slices.Contains(s.Unheard, name) {
				why = fmt.Sprintf("whether the guest on %s has %s is not known: it was there before this server, which found nothing kept of its lease; "+
					"it is known once the guest speaks (have its DHCP client renew, or start the VM again)", l.Interface, l.Address)
			}
			words = append(words, name+": "+why)
		}
	}
	return strings.Join(words, "; ")
}

// waitedFor are the leases by pod interface that a guest has if it has its
// addresses: the IPv4 one if there is one, since not every guest asks for an IPv6
// address.
func (s SessionStatus) waitedFor() map[string]journal.Status {
	all := maps.Clone(s.Leases6)
	if all == nil {
		all = map[string]journal.Status{}
	}
	maps.Copy(all, s.Leases)
	return all
}

// lastSteps say why a lease is none after that step.
var lastSteps = map[journal.EventType]string{
	journal.EventRefused:  "it asked for another address, and was refused",
	journal.EventDeclined: "it declined it, since somebody else uses the address",
	journal.EventReleased: "it released it",
	journal.EventExpired:  "the lease has expired",
}

func noLease(l journal.Status) string {
	guest := fmt.Sprintf("the guest on %s has not got %s", l.Interface, l.Address)
	other := l.OtherSource
	switch {
	case other.Count > 0 && !l.LastMessage.At.After(other.At):
		return fmt.Sprintf("%s: a guest with MAC %s asks for it (%d times), the VM's is %s: %s", guest, other.MAC, other.Count, other.Want, other.Remedy())
	case l.State == journal.Offered:
		return fmt.Sprintf("%s: it was offered, and the guest has not taken it; received %s", guest, journal.Counts(l.Received))
	case lastSteps[l.LastEvent.Type] != "":
		return fmt.Sprintf("%s: %s at %s", guest, lastSteps[l.LastEvent.Type], l.LastEvent.At.Format(time.TimeOnly))
	case l.LastMessage.Type != "":
		return fmt.Sprintf("%s: received %s, the last one at %s, dropped %s", guest, journal.Counts(l.Received), l.LastMessage.At.Format(time.TimeOnly), journal.Counts(l.Dropped))
	case len(l.Dropped) > 0:
		return fmt.Sprintf("%s: what was received is of no use: %s", guest, journal.Counts(l.Dropped))
	}
	return guest + ": it has not asked for it (is the VM running, with a DHCP client?)"
}
