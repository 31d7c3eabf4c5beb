package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Ports of RFC 2131 §4.1.
const (
	serverPort = 67
	clientPort = 68
)

// filter lets what was sent to the server port pass.
var filter = packet.UDP4Filter(serverPort)

// Server serves one lease on one tap. Make it with NewServer; its methods can
// be called from any goroutine.
type Server struct {
	// Budget is how many messages per second, and at once, are looked at. What
	// a guest sends beyond is dropped by the kernel. 0: 64. Set before Serve.
	Budget int

	base      *serve.Server
	responder *responder
}

// NewServer opens a server of the lease on the tap, in the network namespace of the
// calling thread, which needs CAP_NET_RAW there. The tap may be down, have no carrier
// or be a bridge's port, and needs no address. NewServer fails if the lease is not
// valid; what of it can't be sent is left out, and noted in the log and in the status.
// A nil log is silent. Close the server.
func NewServer(tap string, l Lease, log *slog.Logger) (*Server, error) {
	r, notes, err := l.compile()
	if err != nil {
		return nil, err
	}
	base, err := serve.Listen(serve.Config{
		Protocol: "DHCP", Tap: tap, Filter: filter, Address: r.lease.Address, Notes: notes, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &Server{base: base, responder: r}, nil
}

// Close ends a Serve that is under way and frees the sockets.
func (s *Server) Close() error { return s.base.Close() }

// Serve answers the guest until ctx ends, and then returns nil. It outlives the
// interface being down, having no carrier, and being opened anew by another
// QEMU. It returns [lease.ErrGone], wrapped, if the interface is deleted. It may be
// called again after it has returned, but not twice at once.
//
// Its buffers are there from the start; what a message takes beyond is bounded
// by their size, and nothing of it stays.
func (s *Server) Serve(ctx context.Context) error {
	if s.Budget != 0 {
		s.base.Budget = s.Budget
	}
	out := make([]byte, 0, packet.EthernetLen+maxDatagram)
	return s.base.Serve(ctx, func(b []byte, checksumPending bool) { s.handle(b, checksumPending, out) }, nil)
}

// Status tells what is.
func (s *Server) Status() lease.Status { return s.base.Status() }

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
func (s *Server) Wait(ctx context.Context, until func(lease.Status) bool) (lease.Status, error) {
	return s.base.Wait(ctx, until)
}

// Events returns the steps of the lease from now on, in order, until ctx ends, which
// closes the channel. The server never waits for a reader: while 64 events wait to be
// read further ones are lost to this reader, and the next one that it gets says how
// many.
func (s *Server) Events(ctx context.Context) <-chan lease.Event { return s.base.Events(ctx) }

// Resume takes over what an earlier server knew of this lease, so that a guest
// that has its address, and need not speak again for long, is known to have it.
// Another address, or a lease that has run out since, is nothing to take over.
// Call it before Serve.
func (s *Server) Resume(was lease.Status) { s.base.Resume(was) }

// handle deals with one frame: what it asks, what the answer is, and what is
// known after the answer has gone out. The answer is built in out.
func (s *Server) handle(frame []byte, checksumPending bool, out []byte) {
	r := s.responder
	d, err := packet.ParseUDP4(frame, checksumPending)
	switch {
	case err != nil:
		s.base.Drop(err)
		return
	case d.Dst.Port() != serverPort:
		s.base.Drop(lease.DropBadFrame)
		return
	case d.SrcMAC != r.lease.MAC:
		s.base.DropSource(d.SrcMAC, r.lease.MAC)
		return
	}
	req, err := parseMessage(d.Payload)
	if err != nil {
		s.base.Drop(err)
		return
	}
	reply, err := r.reply(req)
	if err == nil && addrOf(reply.YourIPAddr).IsValid() && s.base.IsDeclined() {
		err = lease.DropDeclined
	}
	s.noteRequest(req, err)
	if err != nil {
		s.base.Drop(err)
		return
	}
	if err := s.send(req, reply, out); err != nil {
		s.base.Unsent(err)
		return
	}
	s.noteReply(req, reply)
}

// send fits the reply to what the guest takes and sends it where RFC 2131 §4.1
// says.
func (s *Server) send(req, reply *dhcpv4.DHCPv4, out []byte) error {
	r, conn := s.responder, s.base.Conn
	list, limit := req.Options[optParameters], maxMessage(req, conn.MTU())
	out, left := appendMessage(out[:packet.UDP4Len], reply, list, limit)
	if slices.Contains(left, optRoutes) && r.addRouter(reply) {
		out, left = appendMessage(out[:packet.UDP4Len], reply, list, limit)
	}
	if len(left) > 0 {
		s.base.Update(func(e serve.Entry) {
			for _, code := range left {
				e.Misfit(uint16(code), "it does not fit the message size that the guest takes")
			}
		})
	}
	to := destination(reply)
	to.SrcMAC, to.Src = conn.SourceFor(r.lease.MAC), netip.AddrPortFrom(r.lease.Server, serverPort)
	packet.SealUDP4(out, to)
	err := conn.Write(out)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: a reply of %d bytes does not pass the MTU of %s, %d: raise it",
			err, len(out)-packet.EthernetLen, conn.Name(), conn.MTU())
	}
	return err
}

// noteRequest keeps what a message says before it is answered; verdict is why
// it gets none, or nil.
func (s *Server) noteRequest(req *dhcpv4.DHCPv4, verdict error) {
	typ := messageType(req)
	s.base.Update(func(e serve.Entry) {
		e.Received[typeName(typ)]++
		if probe.IsDiscover(req) {
			return
		}
		e.LastMessage = lease.Message{Type: typeName(typ), At: time.Now()}
		switch {
		case errors.Is(verdict, lease.DropOtherServer):
			if typ == dhcpv4.MessageTypeRequest && e.State == lease.Offered {
				e.TookOtherOffer()
			}
		case errors.Is(verdict, errNoReply) && typ == dhcpv4.MessageTypeRelease:
			e.Step(lease.EventReleased, 0)
		case errors.Is(verdict, errNoReply):
			e.Step(lease.EventDeclined, 0)
		case verdict == nil:
			e.Client = clientOf(req)
		}
	})
}

// noteReply keeps what the guest has been told.
func (s *Server) noteReply(req, reply *dhcpv4.DHCPv4) {
	question, answer := messageType(req), messageType(reply)
	s.base.Log.Debug("DHCP message answered", "message", typeName(question), "answer", typeName(answer))
	s.base.Update(func(e serve.Entry) {
		e.Sent[typeName(answer)]++
		switch {
		case probe.IsDiscover(req), question == dhcpv4.MessageTypeInform:
		case answer == dhcpv4.MessageTypeNak:
			e.Step(lease.EventRefused, 0, "requested", optionAddr(req, optRequestedIP), "current", addrOf(req.ClientIPAddr))
		case answer == dhcpv4.MessageTypeOffer:
			e.Step(lease.EventOffered, 0)
		case question == dhcpv4.MessageTypeRequest && addrOf(req.ClientIPAddr).IsValid():
			// Only who has the address fills in ciaddr (RFC 2131 §4.3.2).
			e.Step(lease.EventRenewed, s.responder.lease.Duration)
		default:
			e.Step(lease.EventBound, s.responder.lease.Duration)
		}
	})
}

// typeName is the type's name; those that there are not have one in common.
func typeName(m dhcpv4.MessageType) string {
	if m == dhcpv4.MessageTypeNone || m > dhcpv4.MessageTypeInform {
		return "OTHER"
	}
	return m.String()
}

// clientOf reads what the guest says of itself.
func clientOf(req *dhcpv4.DHCPv4) lease.Client {
	id := req.Options[optClientID]
	return lease.Client{
		Hostname:    serve.Printable(req.Options[optHostname]),
		VendorClass: serve.Printable(req.Options[optVendorClass]),
		ID:          fmt.Sprintf("%x", id[:min(len(id), maxPart)]),
	}
}
