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
	"slices"
	"sync"
	"time"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
)

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
	// Log says on which interface, by which protocol.
	Log *slog.Logger
	// Budget is how many messages per second, and at once, are looked at; 64 unless
	// set before Serve. What a guest sends beyond is dropped by the kernel.
	Budget int
	// DeclinePause is how long the address is not given after the guest declined it
	// because somebody else uses it; 10 seconds unless set before Serve.
	DeclinePause time.Duration

	protocol string
	dropped  func() uint64 // frames by the kernel since it was last called

	mu            sync.Mutex
	status        lease.Status
	declinedUntil time.Time
	expiry        *time.Timer // ends a finite lease
	misfits       map[uint16]bool
	// The last one with another MAC that was warned of.
	warned   lease.OtherSource
	readers  map[*reader]bool
	logLines *packet.Budget
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
	return s, nil
}

func newServer(c Config, dropped func() uint64) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		Log:    c.Log.With("interface", c.Tap, "protocol", c.Protocol),
		Budget: defaultBudget, DeclinePause: defaultDeclinePause,
		protocol: c.Protocol, dropped: dropped,
		misfits: make(map[uint16]bool), readers: make(map[*reader]bool), logLines: packet.NewBudget(linesPerSecond, LinesAtOnce),
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

// Close ends a Serve that is under way and frees the sockets.
func (s *Server) Close() error { return s.Conn.Close() }

// Serve reads frames until ctx ends, and then returns nil. It outlives the interface
// being down, having no carrier, and being opened anew by another QEMU. It returns
// [lease.ErrGone], wrapped, if the interface is deleted. It may be called again after
// it has returned, but not twice at once. frame and up are those of [packet.Loop].
func (s *Server) Serve(ctx context.Context, frame func(b []byte, checksumPending bool), up func()) error {
	s.setServing(true)
	defer s.setServing(false)
	err := s.Conn.Run(ctx, packet.Loop{Budget: s.Budget, Frame: frame, Error: s.outlive, Up: up})
	if err != nil {
		err = fmt.Errorf("serve %s on %s: %w", s.protocol, s.Conn.Name(), err)
		s.Update(func(e Entry) { e.fail(err) })
	}
	return err
}

func (s *Server) setServing(is bool) {
	s.Update(func(e Entry) { e.Serving = is })
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

// Unsent counts and keeps that an answer could not be sent.
func (s *Server) Unsent(err error) {
	s.Drop(lease.DropUnsent)
	s.outlived(fmt.Errorf("send: %w", err))
}

// outlived logs and keeps an error.
func (s *Server) outlived(err error) {
	s.Update(func(e Entry) {
		e.log(s.Log.Warn, "the server continues after an error", "error", err)
		e.fail(err)
	})
}

// Drop counts a frame or message that gets no answer. An error that is neither a
// [lease.DropReason] nor one of package packet does not count.
func (s *Server) Drop(err error) {
	why, ok := errors.AsType[lease.DropReason](err)
	switch {
	case errors.Is(err, packet.ErrBadFrame):
		why = lease.DropBadFrame
	case errors.Is(err, packet.ErrBadChecksum):
		why = lease.DropBadChecksum
	case !ok:
		return
	}
	s.Log.Debug("message dropped", "reason", string(why))
	s.Update(func(e Entry) { e.Dropped[why]++ })
}

// Status tells what is.
func (s *Server) Status() lease.Status {
	status, _ := s.snapshot()
	return status
}

// Wait blocks until the status is as wanted, and returns it, or until ctx ends.
// The function is called at once and then after each change; it must not block.
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
	return time.Now().Before(s.declinedUntil)
}
