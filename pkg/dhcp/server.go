package dhcp

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

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

// leaseServer serves one lease on one tap.
type leaseServer struct {
	*serve.Server
	responder *responder
	// out is where answers are built. It is there from the start; what a message takes
	// beyond is bounded by its size, and nothing of it stays.
	out []byte
}

// NewServer opens a server of the lease on the tap, in the network namespace of the
// calling thread, which needs CAP_NET_RAW there. The tap may be down, have no carrier
// or belong to another link, and needs no address. NewServer fails if the lease is not
// valid; what of it can't be sent is left out, and noted in the log and in the status.
// A nil log is silent. Close the server.
func NewServer(tap string, l Lease, log *slog.Logger) (lease.Server, error) {
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
	s := &leaseServer{base, r, make([]byte, 0, packet.EthernetLen+maxDatagram)}
	s.Handle = s.handle
	return s, nil
}

// handle deals with one frame: what it asks, what the answer is, and, later, what is
// known then.
func (s *leaseServer) handle(frame []byte, checksumPending bool) error {
	d, err := packet.ParseUDP4(frame, checksumPending)
	if err != nil {
		return err
	}
	if err := s.CheckUDP(d, serverPort, s.responder.lease.MAC); err != nil {
		return err
	}
	req, err := parseMessage(d.Payload)
	if err != nil {
		return err
	}
	reply, err := s.responder.reply(req)
	if err == nil && addrOf(reply.YourIPAddr).IsValid() && s.IsDeclined() {
		err = lease.DropDeclined
	}
	if err != nil {
		s.Later(func() { s.noteRequest(req, err) })
		if errors.Is(err, errNoReply) {
			s.CatchUp() // nobody waits, and the address may be declined from now on
			return nil
		}
		return err
	}
	err = s.send(req, reply)
	s.Later(func() {
		s.noteRequest(req, nil)
		if err == nil {
			s.noteReply(req, reply)
		}
	})
	return err
}

// noteRequest keeps what the guest has asked, and why it got no answer, or nil.
func (s *leaseServer) noteRequest(req *dhcpv4.DHCPv4, verdict error) {
	s.Received(typeName(messageType(req)), probe.IsDiscover(req), clientOf(req), verdict)
	if errors.Is(verdict, errNoReply) {
		s.Update(func(e serve.Entry) { e.Step(unanswered[messageType(req)], 0) })
	}
}

// unanswered are the messages that are a step of the lease and have no answer.
var unanswered = map[dhcpv4.MessageType]lease.EventType{
	dhcpv4.MessageTypeRelease: lease.EventReleased,
	dhcpv4.MessageTypeDecline: lease.EventDeclined,
}

// send fits the reply to what the guest takes and sends it where RFC 2131 §4.1
// says.
func (s *leaseServer) send(req, reply *dhcpv4.DHCPv4) error {
	list, limit := req.Options[optParameters], maxMessage(req, s.Conn.Link.MTU)
	out, left := appendMessage(s.out[:packet.UDP4Len], reply, list, limit)
	if slices.Contains(left, optRoutes) && s.responder.addRouter(reply) {
		out, left = appendMessage(s.out[:packet.UDP4Len], reply, list, limit)
	}
	for _, code := range left {
		s.Later(func() { s.Misfit(uint16(code), "it does not fit the message size that the guest takes") })
	}
	l, to := &s.responder.lease, destination(reply)
	to.SrcMAC, to.Src = s.Conn.SourceFor(l.MAC), netip.AddrPortFrom(l.Server, serverPort)
	packet.SealUDP4(out, to)
	err := s.Conn.Write(out)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: a reply of %d bytes does not pass the MTU of %s, %d: raise it",
			err, len(out)-packet.EthernetLen, s.Conn.Link.Name, s.Conn.Link.MTU)
	}
	return err
}

// noteReply keeps what the guest has been told.
func (s *leaseServer) noteReply(req, reply *dhcpv4.DHCPv4) {
	question, answer := messageType(req), messageType(reply)
	s.Log.Debug("DHCP message answered", "message", typeName(question), "answer", typeName(answer))
	s.Update(func(e serve.Entry) {
		e.Sent[typeName(answer)]++
		switch {
		case probe.IsDiscover(req), question == dhcpv4.MessageTypeInform:
		case answer == dhcpv4.MessageTypeNak:
			asked := optionAddr(req, optRequestedIP)
			if !asked.IsValid() || asked == e.Address.Addr() { // then it is what the guest has
				asked = addrOf(req.ClientIPAddr)
			}
			e.Step(lease.EventRefused, 0, "requested", asked)
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
