package dhcp6

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// Defaults of a Server.
const (
	defaultBudget       = 64
	defaultDeclinePause = 10 * time.Second // as DHCPv4 has it; RFC 8415 names none
)

// Server serves one lease on one Conn. Make it with NewServer; its methods can
// be called from any goroutine.
type Server struct {
	// Budget is how many messages per second, and at once, are looked at. What
	// a guest sends beyond is dropped by the kernel. 0: 64. Set before Serve.
	Budget int
	// DeclinePause is how long the address is not given after the guest declined
	// it because somebody else uses it. 0: 10 seconds. Set before Serve.
	DeclinePause time.Duration

	conn    *packet.Conn
	log     *slog.Logger
	journal *journal.Journal

	mu        sync.Mutex
	responder *Responder
}

// NewServer returns a server that will hand out the lease on conn, which stays
// the caller's to close, after Serve has returned. It fails if the lease is not
// valid. What of it can't be sent is left out, and noted in the log and in the
// status. A nil log is silent.
func NewServer(conn *Conn, lease Lease, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("interface", conn.link.Name())
	s := &Server{
		conn:    conn.link,
		log:     log,
		journal: journal.New("DHCPv6", conn.link.Name(), log, conn.link.Dropped),
	}
	if err := s.SetLease(lease); err != nil {
		return nil, err
	}
	return s, nil
}

// SetLease puts another lease in the place of the one served so far. The guest
// learns of it when it renews; if the address is another, its old one is taken
// back then.
func (s *Server) SetLease(lease Lease) error {
	r, left, err := lease.Compile()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.responder = r
	s.mu.Unlock()
	s.journal.SetLease(netip.PrefixFrom(r.lease.Address, r.lease.Address.BitLen()), left)
	return nil
}

// Serve answers the guest until ctx ends, and then returns nil. It outlives the
// interface being down, having no carrier, and being opened anew by another
// QEMU. It returns ErrGone, wrapped, if the interface is deleted. It may be
// called again after it has returned, but not twice at once.
func (s *Server) Serve(ctx context.Context) error {
	out := make([]byte, 0, packet.EthernetLen+maxLink)
	return s.journal.Serve(ctx, s.conn, packet.Loop{
		Budget: cmp.Or(s.Budget, defaultBudget),
		Frame:  func(b []byte, checksumPending bool) { s.handle(b, checksumPending, out) },
	})
}

// handle deals with one frame: what it asks, what the answer is, and what is
// known after the answer has gone out. The answer is built in out.
func (s *Server) handle(frame []byte, checksumPending bool, out []byte) {
	r := s.current()
	d, err := r.datagram(frame, checksumPending)
	if errors.Is(err, OtherSource) && d.SrcMAC != r.mac {
		s.journal.RefuseSource(OtherSource, d.SrcMAC[:], r.mac[:])
		return
	}
	if err != nil {
		s.journal.Refuse(err)
		return
	}
	req, err := parseMessage(d.message)
	if err != nil {
		s.journal.Refuse(err)
		return
	}
	reply, err := r.Reply(req, !d.Dst.IsMulticast())
	if err == nil && r.grants(reply) && s.journal.IsDeclined() {
		err = Declined
	}
	s.noteRequest(req, err)
	if err != nil {
		s.journal.Refuse(err)
		return
	}
	if err := s.send(r, d.Src, reply, out); err != nil {
		s.journal.Unsent(err)
		return
	}
	s.noteReply(r, req, reply)
}

// datagram reads one that the guest has sent to a server.
func (r *Responder) datagram(frame []byte, checksumPending bool) (datagram, error) {
	d, err := parseFrame(frame, checksumPending)
	switch {
	case err != nil:
		return d, err
	case d.dstPort != serverPort:
		return d, BadFrame
	case d.SrcMAC != r.mac, d.Src != r.lease.Address && !d.Src.IsLinkLocalUnicast():
		return d, OtherSource
	}
	return d, nil
}

// send fits the reply to the link and sends it to who asked (RFC 8415 §18.3.10).
func (s *Server) send(r *Responder, to netip.Addr, reply *dhcpv6.Message, out []byte) error {
	link := min(max(s.conn.MTU(), minLink), maxLink)
	out, left := appendMessage(out[:headLen], reply, link-(headLen-packet.EthernetLen))
	s.noteMisfits(left)
	sealFrame(out, datagram{
		Packet6: packet.Packet6{SrcMAC: s.conn.SourceFor(r.mac), DstMAC: r.mac, Src: r.lease.Server, Dst: to},
		srcPort: serverPort, dstPort: clientPort,
	})
	return s.conn.Write(out)
}

func (s *Server) current() *Responder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.responder
}
