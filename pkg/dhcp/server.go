package dhcp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// Defaults of a Server.
const (
	defaultBudget       = 64
	defaultDeclinePause = 10 * time.Second // the client waits as long: RFC 2131 §3.1
)

// Server serves one lease on one Conn. Make it with NewServer; its methods can
// be called from any goroutine.
type Server struct {
	// Budget is how many messages per second, and at once, are looked at. What
	// a guest sends beyond is dropped by the kernel. 0: 64. Set before Serve.
	Budget int
	// DeclinePause is how long the address is not offered after the guest
	// declined it because somebody else uses it. 0: 10 seconds. Set before Serve.
	DeclinePause time.Duration

	conn    *packet.Conn
	log     *slog.Logger
	journal *journal.Journal

	mu        sync.Mutex
	responder *Responder
	misfits   [256]bool // options of which a note says that they did not fit
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
		journal: journal.New("DHCP", conn.link.Name(), log, conn.link.Dropped),
	}
	if err := s.SetLease(lease); err != nil {
		return nil, err
	}
	return s, nil
}

// SetLease puts another lease in the place of the one served so far. The guest
// learns of it when it renews; if the address is another, it is refused its old
// one then and starts anew.
func (s *Server) SetLease(lease Lease) error {
	r, left, err := lease.Compile()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.responder = r
	s.misfits = [256]bool{}
	s.mu.Unlock()
	s.journal.SetLease(r.lease.Address, left)
	return nil
}

// Serve answers the guest until ctx ends, and then returns nil. It outlives the
// interface being down, having no carrier, and being opened anew by another
// QEMU. It returns ErrGone, wrapped, if the interface is deleted. It may be
// called again after it has returned, but not twice at once.
//
// Its buffers are there from the start; what a message takes beyond is bounded
// by their size, and nothing of it stays.
func (s *Server) Serve(ctx context.Context) error {
	out := make([]byte, 0, ethLen+maxDatagram)
	return s.journal.Serve(ctx, s.conn, packet.Loop{
		Budget: cmp.Or(s.Budget, defaultBudget),
		Frame:  func(b []byte, checksumPending bool) { s.handle(b, checksumPending, out) },
	})
}

// handle deals with one frame: what it asks, what the answer is, and what is
// known after the answer has gone out. The answer is built in out.
func (s *Server) handle(frame []byte, checksumPending bool, out []byte) {
	r := s.current()
	d, err := parseFrame(frame, checksumPending)
	switch {
	case err != nil:
		s.refuse(err)
		return
	case d.dst.port != serverPort:
		s.journal.Refuse(BadFrame)
		return
	case d.src.mac != r.mac:
		s.journal.RefuseSource(OtherSource, d.src.mac[:], r.mac[:])
		return
	}
	req, err := parseMessage(d.payload)
	if err != nil {
		s.refuse(err)
		return
	}
	reply, err := r.Reply(req)
	if err == nil && addrOf(reply.YourIPAddr).IsValid() && s.journal.IsDeclined() {
		err = Declined
	}
	s.noteRequest(req, err)
	if err != nil {
		s.refuse(err)
		return
	}
	if err := s.send(r, req, reply, out); err != nil {
		s.journal.Unsent(err)
		return
	}
	s.noteReply(r, req, reply)
}

// send fits the reply to what the guest takes and sends it where RFC 2131 §4.1
// says.
func (s *Server) send(r *Responder, req, reply *dhcpv4.DHCPv4, out []byte) error {
	list, limit := req.Options[optParameters], maxMessage(req, s.conn.MTU())
	out, left := appendMessage(out[:headLen], reply, list, limit)
	if slices.Contains(left, optRoutes) && r.addRouter(reply) {
		out, left = appendMessage(out[:headLen], reply, list, limit)
	}
	if len(left) > 0 {
		s.noteMisfits(reply, left)
	}
	seal(out, reply, s.conn.SourceFor(r.mac), r.lease.Server)
	err := s.conn.Write(out)
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: a reply of %d bytes does not pass the MTU of %s, %d: raise it",
			err, len(out)-ethLen, s.conn.Name(), s.conn.MTU())
	}
	return err
}

func (s *Server) current() *Responder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.responder
}

// firstMisfit tells whether an option is the first of its code that did not fit.
func (s *Server) firstMisfit(code uint8) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.misfits[code]
	s.misfits[code] = true
	return !was
}
