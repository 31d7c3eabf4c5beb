package dhcp6

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/probe"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

// Ports of RFC 8415 §7.2.
const (
	clientPort = 546
	serverPort = 547
)

// minLink and maxLink are the least and the most that a packet of ours has, whatever
// the link would carry.
const minLink, maxLink = 1280, 1500

// filter lets what was sent to the server port pass.
var filter = packet.IPv6Filter(unix.IPPROTO_UDP, 2, 2, serverPort)

// Server serves one lease on one tap. Make it with NewServer; its methods can
// be called from any goroutine.
type Server struct {
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
		Protocol: "DHCPv6", Tap: tap, Filter: filter, Notes: notes, Log: log,
		Address: netip.PrefixFrom(r.lease.Address, r.lease.Address.BitLen()),
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
func (s *Server) Serve(ctx context.Context) error {
	out := make([]byte, 0, packet.EthernetLen+maxLink)
	return s.base.Serve(ctx, func(b []byte, checksumPending bool) { s.handle(b, checksumPending, out) }, nil)
}

// Status tells what is. Its Address has all bits, its Client's ID is the DUID.
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
	d, err := packet.ParseUDP6(frame, checksumPending)
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
	case d.Src.Addr() != r.lease.Address && !d.Src.Addr().IsLinkLocalUnicast():
		s.base.Drop(lease.DropOtherSource)
		return
	}
	req, err := parseMessage(d.Payload)
	if err != nil {
		s.base.Drop(err)
		return
	}
	reply, err := r.reply(req, !d.Dst.Addr().IsMulticast())
	if err == nil && r.grants(reply) && s.base.IsDeclined() {
		err = lease.DropDeclined
	}
	s.noteRequest(req, err)
	if err != nil {
		s.base.Drop(err)
		return
	}
	if err := s.send(d.Src.Addr(), reply, out); err != nil {
		s.base.Unsent(err)
		return
	}
	s.noteReply(req, reply)
}

// send fits the reply to the link and sends it to who asked (RFC 8415 §18.3.10).
func (s *Server) send(to netip.Addr, reply *dhcpv6.Message, out []byte) error {
	l, conn := s.responder.lease, s.base.Conn
	link := min(max(conn.MTU(), minLink), maxLink)
	out, left := appendMessage(out[:packet.UDP6Len], reply, link-(packet.UDP6Len-packet.EthernetLen))
	if len(left) > 0 {
		s.base.Update(func(e serve.Entry) {
			for _, code := range left {
				e.Misfit(uint16(code), "it does not fit the link's MTU")
			}
		})
	}
	packet.SealUDP6(out, packet.UDP{
		SrcMAC: conn.SourceFor(l.MAC), DstMAC: l.MAC,
		Src: netip.AddrPortFrom(l.Server, serverPort), Dst: netip.AddrPortFrom(to, clientPort),
	})
	return conn.Write(out)
}

// noteRequest keeps what a message says before it is answered; verdict is why
// it gets no answer, or nil.
func (s *Server) noteRequest(req *dhcpv6.Message, verdict error) {
	s.base.Update(func(e serve.Entry) {
		e.Received[typeName(req.MessageType)]++
		if probe.IsSolicit(req) {
			return
		}
		e.LastMessage = lease.Message{Type: typeName(req.MessageType), At: time.Now()}
		switch {
		case errors.Is(verdict, lease.DropOtherServer):
			if req.MessageType == dhcpv6.MessageTypeRequest && e.State == lease.Offered {
				e.TookOtherOffer()
			}
		case verdict == nil:
			e.Client = clientOf(req)
		}
	})
}

// noteReply keeps what the guest has been told.
func (s *Server) noteReply(req, reply *dhcpv6.Message) {
	r, question, answer := s.responder, req.MessageType, reply.MessageType
	s.base.Log.Debug("DHCPv6 message answered", "message", question, "answer", answer)
	s.base.Update(func(e serve.Entry) {
		e.Sent[typeName(answer)]++
		if probe.IsSolicit(req) || status(reply.Options.Options) == iana.StatusUseMulticast {
			return
		}
		ours, _ := r.named(req)
		switch question {
		case dhcpv6.MessageTypeRelease:
			if ours > 0 {
				e.Step(lease.EventReleased, 0)
			}
		case dhcpv6.MessageTypeDecline:
			if ours > 0 {
				e.Step(lease.EventDeclined, 0)
			}
		case dhcpv6.MessageTypeConfirm:
			switch {
			case status(reply.Options.Options) != iana.StatusSuccess:
				e.Step(lease.EventRefused, 0)
			case e.State == lease.Bound: // it extends nothing (RFC 8415 §18.3.3)
				e.Step(lease.EventBound, serve.KeepEnd)
			default: // it ends then at the latest
				e.Step(lease.EventBound, r.lease.Valid)
			}
		case dhcpv6.MessageTypeInformationRequest:
		default:
			r.noteGrant(e, req, reply, ours > 0)
		}
	})
}

// noteGrant keeps that the guest was given the address, which it named or not, or was
// not.
func (r *responder) noteGrant(e serve.Entry, req, reply *dhcpv6.Message, named bool) {
	isRenewal := req.MessageType == dhcpv6.MessageTypeRenew || req.MessageType == dhcpv6.MessageTypeRebind
	switch {
	case !r.grants(reply):
		if req.MessageType != dhcpv6.MessageTypeSolicit && len(reply.Options.IANA()) > 0 {
			e.Step(lease.EventRefused, 0)
		}
	case reply.MessageType == dhcpv6.MessageTypeAdvertise:
		e.Step(lease.EventOffered, 0)
	case isRenewal && named:
		e.Step(lease.EventRenewed, r.lease.Valid)
	default:
		e.Step(lease.EventBound, r.lease.Valid)
	}
}

// grants tells whether a reply gives the guest its address.
func (r *responder) grants(reply *dhcpv6.Message) bool {
	return slices.ContainsFunc(reply.Options.IANA(), r.has)
}

// status is a status code; Success if there is none.
func status(options dhcpv6.Options) iana.StatusCode {
	if o, ok := options.GetOne(dhcpv6.OptionStatusCode).(*dhcpv6.OptStatusCode); ok {
		return o.StatusCode
	}
	return iana.StatusSuccess
}

// typeName is the type's name; those that there are not have one in common.
func typeName(m dhcpv6.MessageType) string {
	if m == 0 || m > dhcpv6.MessageTypeInformationRequest {
		return "OTHER"
	}
	return m.String()
}

// clientOf reads what the guest says of itself.
func clientOf(req *dhcpv6.Message) lease.Client {
	c := lease.Client{ID: fmt.Sprintf("%x", valueOf(req, dhcpv6.OptionClientID))}
	if v := valueOf(req, dhcpv6.OptionFQDN); len(v) > 0 {
		c.Hostname = serve.Printable(labels(v[1:]))
	}
	if _, class := vendorClass(req); class != nil {
		c.VendorClass = serve.Printable(class)
	}
	return c
}

// labels makes text of a name on the wire, as far as it goes.
func labels(b []byte) []byte {
	var out [][]byte
	for len(b) > 0 && b[0] > 0 && int(b[0]) < len(b) {
		out = append(out, b[1:1+b[0]])
		b = b[1+b[0]:]
	}
	return bytes.Join(out, []byte("."))
}
