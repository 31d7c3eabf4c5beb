package dhcp6

import (
	"context"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// Status is what a [Server] knows at one moment, as a value: whether it is Serving
// on which Interface; the Address, which has all bits; the State of the lease (none,
// offered or bound), Since when, and when it Expires; LastEvent, Client (whose ID is
// the DUID) and LastMessage; how many messages were Received and Sent by type, and
// Dropped by reason; the LastError; and Notes of what could not be sent. It is the
// type of package journal, whose documentation has the fields in full.
type Status = journal.Status

// Status tells what is.
func (s *Server) Status() Status { return s.journal.Status() }

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (s *Server) Wait(ctx context.Context, until func(Status) bool) (Status, error) {
	return s.journal.Wait(ctx, until)
}

// Events returns the events from now on, in order, until ctx ends, which closes
// the channel. The server never waits for a reader: while 64 events wait to be
// read further ones are lost to this reader, and the next one that it gets says
// how many.
func (s *Server) Events(ctx context.Context) <-chan journal.Event { return s.journal.Events(ctx) }

// Resume takes over what an earlier server knew of this lease, so that a guest
// that has its address, and need not speak again for long, is known to have it.
// Another address, or a lease that has run out since, is nothing to take over.
// Call it before Serve.
func (s *Server) Resume(was Status) { s.journal.Resume(was) }
