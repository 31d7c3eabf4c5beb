package ra

import (
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Kinds of messages, as Status counts them.
const (
	solicitation       = "RS"
	advertisement      = "RA"        // to the guest that asked
	advertisementToAll = "RA-to-all" // periodic, or to a guest that has no address yet
)

// Status is what a Server knows at one moment. It is a value.
type Status struct {
	// Serving is whether Serve runs.
	Serving bool `json:"serving"`
	// Interface is the tap.
	Interface string `json:"interface"`
	// Router is whom the guest is told of.
	Router netip.Addr `json:"router"`
	// LastMessage is the last solicitation of the guest.
	LastMessage lease.Message `json:"lastMessage,omitzero"`
	// Received counts solicitations (RS), Sent advertisements (RA to the guest
	// that asked, RA-to-all the others), Dropped what got no answer by the reason.
	Received map[string]uint64           `json:"received,omitempty"`
	Sent     map[string]uint64           `json:"sent,omitempty"`
	Dropped  map[lease.DropReason]uint64 `json:"dropped,omitempty"`
	// LastError is the last thing that went wrong on our side.
	LastError lease.Failure `json:"lastError,omitzero"`
	// Notes say which settings could not be sent, and why.
	Notes []string `json:"notes,omitempty"`
}

// Status tells what is.
func (s *Server) Status() Status {
	l := s.base.Status()
	return Status{
		Serving: l.Serving, Interface: l.Interface, Router: s.router, LastMessage: l.LastMessage,
		Received: l.Received, Sent: l.Sent, Dropped: l.Dropped, LastError: l.LastError, Notes: l.Notes,
	}
}
