package dhcp6

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"

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

// leaseServer serves one lease on one tap.
type leaseServer struct {
	*serve.Server
	responder *responder
	out       []byte // where answers are built
}

// NewServer opens a server of the lease on the tap, in the network namespace of the
// calling thread, which needs CAP_NET_RAW there. The tap may be down, have no carrier
// or belong to another link, and needs no address. NewServer fails if the lease is not
// valid; what of it can't be sent is left out, and noted in the log and in the status.
// A nil log is silent. The status' Address has all bits, its Client's ID is the DUID.
// Close the server.
func NewServer(tap string, l Lease, log *slog.Logger) (lease.Server, error) {
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
	s := &leaseServer{base, r, make([]byte, 0, packet.EthernetLen+maxLink)}
	s.Handle = s.handle
	return s, nil
}

// handle deals with one frame: what it asks, what the answer is, and, later, what is
// known then.
func (s *leaseServer) handle(frame []byte, checksumPending bool) error {
	r := s.responder
	d, err := packet.ParseUDP6(frame, checksumPending)
	if err != nil {
		return err
	}
	if err := s.CheckUDP(d, serverPort, r.lease.MAC); err != nil {
		return err
	}
	if d.Src.Addr() != r.lease.Address && !d.Src.Addr().IsLinkLocalUnicast() {
		return lease.DropOtherSource
	}
	req, err := parseMessage(d.Payload)
	if err != nil {
		return err
	}
	reply, err := r.reply(req, !d.Dst.Addr().IsMulticast())
	if err == nil && r.isIn(reply) && s.IsDeclined() {
		err = lease.DropDeclined
	}
	if err != nil {
		s.Later(func() { s.noteRequest(req, err) })
		return err
	}
	err = s.send(d.Src.Addr(), reply)
	s.Later(func() {
		s.noteRequest(req, nil)
		if err == nil {
			s.noteReply(req, reply)
		}
	})
	if req.MessageType == dhcpv6.MessageTypeDecline {
		s.CatchUp() // the address may be declined from now on
	}
	return err
}

// noteRequest keeps what the guest has asked, and why it got no answer, or nil.
func (s *leaseServer) noteRequest(req *dhcpv6.Message, verdict error) {
	s.Received(typeName(req.MessageType), probe.IsSolicit(req), clientOf(req), verdict)
}

// send fits the reply to the link and sends it to who asked (RFC 8415 §18.3.10).
func (s *leaseServer) send(to netip.Addr, reply *dhcpv6.Message) error {
	l := &s.responder.lease
	link := min(max(s.Conn.Link.MTU, minLink), maxLink)
	out, left := appendMessage(s.out[:packet.UDP6Len], reply, link-(packet.UDP6Len-packet.EthernetLen))
	for _, code := range left {
		s.Later(func() { s.Misfit(uint16(code), "it does not fit the link's MTU") })
	}
	packet.SealUDP6(out, packet.UDP{
		SrcMAC: s.Conn.SourceFor(l.MAC), DstMAC: l.MAC,
		Src: netip.AddrPortFrom(l.Server, serverPort), Dst: netip.AddrPortFrom(to, clientPort),
	})
	return s.Conn.Write(out)
}

// noteReply keeps what the guest has been told.
func (s *leaseServer) noteReply(req, reply *dhcpv6.Message) {
	r, question, answer := s.responder, req.MessageType, reply.MessageType
	s.Log.Debug("DHCPv6 message answered", "message", question, "answer", answer)
	s.Update(func(e serve.Entry) {
		e.Sent[typeName(answer)]++
		if probe.IsSolicit(req) || status(reply.Options.Options) == iana.StatusUseMulticast {
			return
		}
		switch question {
		case dhcpv6.MessageTypeRelease:
			if r.isIn(req) {
				e.Step(lease.EventReleased, 0)
			}
		case dhcpv6.MessageTypeDecline:
			if r.isIn(req) {
				e.Step(lease.EventDeclined, 0)
			}
		case dhcpv6.MessageTypeConfirm:
			switch {
			case status(reply.Options.Options) != iana.StatusSuccess:
				r.noteRefusal(e, req)
			case e.State == lease.Bound: // it extends nothing (RFC 8415 §18.3.3)
				e.Step(lease.EventBound, serve.KeepEnd)
			default: // it ends then at the latest
				e.Step(lease.EventBound, r.lease.Valid)
			}
		case dhcpv6.MessageTypeInformationRequest:
		default:
			r.noteGrant(e, req, reply)
		}
	})
}

// noteGrant keeps that the guest was given the address, or was not.
func (r *responder) noteGrant(e serve.Entry, req, reply *dhcpv6.Message) {
	isRenewal := req.MessageType == dhcpv6.MessageTypeRenew || req.MessageType == dhcpv6.MessageTypeRebind
	switch {
	case !r.isIn(reply):
		if req.MessageType != dhcpv6.MessageTypeSolicit && len(reply.Options.IANA()) > 0 {
			r.noteRefusal(e, req)
		}
	case reply.MessageType == dhcpv6.MessageTypeAdvertise:
		e.Step(lease.EventOffered, 0)
	case isRenewal && r.isIn(req):
		e.Step(lease.EventRenewed, r.lease.Valid)
	default:
		e.Step(lease.EventBound, r.lease.Valid)
	}
}

// noteRefusal keeps that the guest asked for addresses that it can't have.
func (r *responder) noteRefusal(e serve.Entry, req *dhcpv6.Message) {
	var requested []netip.Addr
	for _, a := range r.others(req) {
		requested = append(requested, addrOf(a))
	}
	e.Step(lease.EventRefused, 0, "requested", requested)
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
