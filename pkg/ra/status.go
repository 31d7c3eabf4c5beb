package ra

import (
	"context"
	"net/netip"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
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
	LastMessage journal.Message `json:"lastMessage,omitzero"`
	// Received counts solicitations (RS), Sent advertisements (RA to the guest
	// that asked, RA-to-all the others), Dropped what got no answer by the reason.
	Received map[string]uint64  `json:"received,omitempty"`
	Sent     map[string]uint64  `json:"sent,omitempty"`
	Dropped  map[Silence]uint64 `json:"dropped,omitempty"`
	// LastError is the last thing that went wrong on our side.
	LastError journal.Failure `json:"lastError,omitzero"`
	// Notes say which settings could not be sent, and why.
	Notes []string `json:"notes,omitempty"`
}

// Status tells what is.
func (s *Server) Status() Status { return s.statusOf(s.journal.Status()) }

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (s *Server) Wait(ctx context.Context, until func(Status) bool) (Status, error) {
	j, err := s.journal.Wait(ctx, func(j journal.Status) bool { return until(s.statusOf(j)) })
	return s.statusOf(j), err
}

func (s *Server) statusOf(j journal.Status) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{
		Serving: j.Serving, Interface: j.Interface, Router: s.router, LastMessage: j.LastMessage,
		Received: j.Received, Sent: j.Sent, Dropped: j.Dropped, LastError: j.LastError, Notes: j.Notes,
	}
}
