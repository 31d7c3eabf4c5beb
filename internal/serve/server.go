// Package serve is what the servers on a guest's tap share: a packet socket that is
// read within a budget, and the [lease.Status] that each message changes and others
// read and wait for. It knows no protocol.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// sourceWarnings is how long after a warning of another MAC there is none of
// yet another one.
const sourceWarnings = 10 * time.Minute

// Defaults of a Server.
const (
	defaultBudget       = 64
	defaultDeclinePause = 10 * time.Second // the client waits as long (RFC 2131 §3.1); RFC 8415 names none
)

// How much a guest can bring about in the log.
const (
	LinesAtOnce    = 50
	linesPerSecond = 1
)

// Config is what a Server is about.
type Config struct {
	Protocol string // in the log and in errors
	Tap      string
	Filter   []bpf.Instruction
	Address  netip.Prefix // of the lease
	Notes    []string     // of what cannot be sent of the settings
	Log      *slog.Logger // nil: silent
}

// Server is the part of a server that is the same for all protocols. Make it with
// Listen; its methods can be called from any goroutine.
type Server struct {
	Conn *packet.Conn
	// Log says on which tap, by which protocol.
	Log *slog.Logger
	// Handle answers one frame, as that of [packet.Loop], and does the rest Later. Its
	// error is why the frame gets no answer, for Drop. Set it before Serve.
	Handle func(frame []byte, checksumPending bool) error
	// Up is called, on a goroutine of its own, each time the tap becomes able to carry
	// frames: a guest has opened it. Nil: nobody asks.
	Up func()
	// DeclinePause is how long the address is not given after the guest declined it
	// because somebody else uses it; 10 seconds unless set before Serve.
	DeclinePause time.Duration

	protocol string
	budget   int
	dropped  func() uint64 // frames by the kernel since it was last called
	notes    notes
	lines    *queue // of the log

	mu      sync.Mutex
	status  lease.Status
	expiry  *time.Timer // ends a finite lease
	closed  bool        // nothing ends it any more: whether the guest renews it another hears
	running bool        // the tap carries frames
	left    bool        // the tap was closed since the guest last got, or renewed, its lease
	misfits map[uint16]bool
	// The last one with another MAC that was warned of.
	warned   lease.OtherSource
	readers  map[*reader]bool
	logLines *rate.Limiter
	changed  chan struct{} // closed at the next change; nil: nobody waits
}

// Listen opens a Server on the tap in the network namespace of the calling thread,
// which needs CAP_NET_RAW there. It can serve from any thread then. Close it.
func Listen(c Config) (*Server, error) {
	conn, err := packet.Listen(c.Tap, c.Filter)
	if err != nil {
		return nil, fmt.Errorf("serve %s on %s: %w", c.Protocol, c.Tap, err)
	}
	s := newServer(c, conn.Dropped)
	s.Conn = conn
	s.follow(conn.Flags()) // the watch is there: Serve is told of what changes from now on
	return s, nil
}

func newServer(c Config, dropped func() uint64) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	q := &queue{}
	s := &Server{
		lines:        q,
		Log:          slog.New(lines{c.Log.Handler(), q}).With("tap", c.Tap, "protocol", c.Protocol),
		DeclinePause: defaultDeclinePause,
		protocol:     c.Protocol, budget: defaultBudget, dropped: dropped,
		misfits: make(map[uint16]bool), readers: make(map[*reader]bool), logLines: rate.NewLimiter(linesPerSecond, LinesAtOnce),
		status: lease.Status{
			Interface: c.Tap, Address: c.Address, State: lease.None, Notes: c.Notes,
			Received: make(map[string]uint64), Sent: make(map[string]uint64), Dropped: make(map[lease.DropReason]uint64),
		},
	}
	for _, note := range c.Notes {
		s.Log.Warn(noteText, "setting", note)
	}
	return s
}

// noteText says in the log that the guest is not told of something.
const noteText = "setting left out or changed"

// Close is that of [lease.Server].
func (s *Server) Close() error {
	s.stopExpiry()
	return s.Conn.Close()
}

// SetBudget is that of [lease.Server].
func (s *Server) SetBudget(messages int) { s.budget = messages }

// Serve is that of [lease.Server].
func (s *Server) Serve(ctx context.Context) error {
	s.setServing(true)
	defer s.setServing(false)
	frame := func(b []byte, checksumPending bool) {
		if err := s.Handle(b, checksumPending); err != nil {
			s.Later(func() { s.Drop(err) })
		}
	}
	err := s.Conn.Run(ctx, packet.Loop{Budget: s.budget, Frame: frame, Quiet: s.CatchUp, Error: s.outlive, Changed: s.follow})
	if errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("serve %s on %s: %w", s.protocol, s.Conn.Link.Name, lease.ErrClosed)
	}
	if err != nil {
		err = fmt.Errorf("serve %s on %s: %w", s.protocol, s.Conn.Link.Name, err)
		s.Update(func(e Entry) { e.fail(err) })
	}
	return err
}

func (s *Server) setServing(is bool) {
	s.Update(func(e Entry) { e.Serving = is })
}

// follow is told of the tap's changes.
func (s *Server) follow(flags uint32) {
	opened := false
	s.Update(func(e Entry) {
		running := flags&unix.IFF_RUNNING != 0
		opened, s.running = running && !s.running, running
		if flags&unix.IFF_UP == 0 { // whether there is a carrier is told when it is up
			return
		}
		// Either flag may be behind the other: see nl.Link.
		e.NoCarrier = flags&(unix.IFF_RUNNING|unix.IFF_LOWER_UP) == 0
		s.left = s.left || e.NoCarrier
	})
	if opened && s.Up != nil {
		s.Up()
	}
}

// outlive deals with an error of receiving.
func (s *Server) outlive(err error) {
	switch {
	case errors.Is(err, packet.ErrTooLong):
		s.Drop(lease.DropBadFrame)
	case errors.Is(err, unix.ENETDOWN):
		s.Log.Debug("interface is down") // it may come up again
	default:
		s.outlived(fmt.Errorf("receive: %w", err))
	}
}

// outlived logs and keeps an error.
func (s *Server) outlived(err error) {
	s.Update(func(e Entry) {
		e.log(s.Log.Warn, "the server continues after an error", "error", err)
		e.fail(err)
	})
}

// CheckUDP reports why a datagram is none of the guest to the port. It keeps and logs
// who sends with another Ethernet address than the guest's, who can forge one for every
// message: the last one is kept, and only so many are logged.
func (s *Server) CheckUDP(d packet.UDP, port uint16, guest mac.Addr) error {
	switch {
	case d.Dst.Port() != port:
		return lease.DropBadFrame
	case d.SrcMAC == guest:
		return nil
	}
	s.Update(func(e Entry) {
		now := time.Now()
		e.OtherSource = lease.OtherSource{MAC: d.SrcMAC, Want: guest, Count: e.OtherSource.Count + 1, At: now}
		if s.warned.MAC == d.SrcMAC || now.Sub(s.warned.At) < sourceWarnings {
			return
		}
		s.warned = e.OtherSource
		s.Log.Warn("a guest with another MAC than the VM's asks for an address, and gets none", "mac", d.SrcMAC, "want", guest, "remedy", e.OtherSource.Remedy())
	})
	return lease.DropOtherSource
}

// informing are the kinds of messages that ask for settings without an address.
var informing = []string{"INFORM", "INFORMATION-REQUEST"}

// Received keeps what a message says before it is answered: what kind it is, whether a
// check of ours sent it, and who sends it. verdict is why it gets no answer, or nil.
func (s *Server) Received(kind string, isProbe bool, client lease.Client, verdict error) {
	s.Update(func(e Entry) {
		e.Received[kind]++
		if isProbe {
			return
		}
		e.LastMessage = lease.Message{Type: kind, At: time.Now()}
		switch {
		case verdict == nil && e.State == lease.Bound && slices.Contains(informing, kind):
			// Who has the lease may be another of the guest's clients.
		case verdict == nil:
			e.Client = client
		case errors.Is(verdict, lease.DropOtherServer) && kind == "REQUEST" && e.State == lease.Offered:
			e.logLease(s.Log.Warn, "guest took another server's offer")
			e.set(lease.None, 0, time.Now())
		}
	})
}

// Misfit keeps, once for each option, that it is left out.
func (s *Server) Misfit(code uint16, why string) {
	s.Update(func(e Entry) {
		if s.misfits[code] {
			return
		}
		s.misfits[code] = true
		note := fmt.Sprintf("option %d left out: %s", code, why)
		e.Notes = append(e.Notes, note)
		s.Log.Warn(noteText, "setting", note)
	})
}

// Drop counts a frame or message that gets no answer. An error that is neither a
// [lease.DropReason] nor ErrBadFrame or ErrBadChecksum of package packet is why the
// answer could not be sent. Nil: there was an answer, or need be none.
func (s *Server) Drop(err error) {
	why, ok := errors.AsType[lease.DropReason](err)
	switch {
	case err == nil:
		return
	case errors.Is(err, packet.ErrBadFrame):
		why = lease.DropBadFrame
	case errors.Is(err, packet.ErrBadChecksum):
		why = lease.DropBadChecksum
	case !ok:
		why = lease.DropUnsent
		s.outlived(fmt.Errorf("send: %w", err))
	}
	s.Log.Debug("message dropped", "reason", string(why))
	s.Update(func(e Entry) { e.Dropped[why]++ })
}

// Status is that of [lease.Server].
func (s *Server) Status() lease.Status {
	status, _ := s.snapshot()
	return status
}

// Wait is that of [lease.Server].
func (s *Server) Wait(ctx context.Context, until func(lease.Status) bool) (lease.Status, error) {
	for {
		status, changed := s.snapshot()
		if until(status) {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return status, fmt.Errorf("wait for %s on %s: %w", s.protocol, status.Interface, context.Cause(ctx))
		case <-changed:
		}
	}
}

// snapshot is the status and what is closed when it changes.
func (s *Server) snapshot() (lease.Status, <-chan struct{}) {
	s.CatchUp()
	dropped := s.dropped()
	s.mu.Lock()
	defer s.mu.Unlock()
	if dropped > 0 {
		s.status.Dropped[lease.DropOverBudget] += dropped
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	status := s.status
	status.Received, status.Sent = maps.Clone(status.Received), maps.Clone(status.Sent)
	status.Dropped = maps.Clone(status.Dropped)
	status.Notes = slices.Clone(status.Notes)
	return status, s.changed
}

// IsDeclined tells whether the guest has declined the address just now.
func (s *Server) IsDeclined() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.status.DeclinedUntil)
}
