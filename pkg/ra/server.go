package ra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/internal/serve"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// budget is how many solicitations per second, and at once, are looked at.
// Hosts send three, four seconds apart (RFC 4861 §10).
const budget = 16

var allNodes = netip.IPv6LinkLocalAllNodes()

// Server advertises one router on one tap. Make it with NewServer; its methods
// can be called from any goroutine.
type Server struct {
	base     *serve.Server
	guest    mac.Addr
	router   netip.Addr
	mac      mac.Addr // the router's
	messages [][]byte
	wake     chan struct{} // the schedule has changed

	mu       sync.Mutex
	schedule schedule
}

// NewServer opens a server that advertises to the guest with this MAC on the tap, in
// the network namespace of the calling thread, which needs CAP_NET_RAW there. The tap
// may be down, have no carrier or belong to another link, and needs no address. NewServer
// fails if the advertisement is not valid; what of it can't be sent is left out, and
// noted in the log and in the status. A nil log is silent. Close the server.
func NewServer(tap string, guest mac.Addr, a Advertisement, log *slog.Logger) (*Server, error) {
	if !guest.IsHost() {
		return nil, fmt.Errorf("advertise router to %q: not a host's Ethernet address", guest)
	}
	messages, notes, err := a.encode()
	if err != nil {
		return nil, err
	}
	base, err := serve.Listen(serve.Config{Protocol: "router advertisements", Tap: tap, Filter: filter, Notes: notes, Log: log})
	if err != nil {
		return nil, err
	}
	base.SetBudget(budget)
	s := &Server{
		base: base, guest: guest, router: a.Router.WithZone(""), mac: a.MAC, messages: messages,
		wake: make(chan struct{}, 1), schedule: schedule{interval: a.interval()},
	}
	base.Handle, base.Up = s.handle, s.begin
	return s, nil
}

// Close ends a Serve that is under way, which returns [lease.ErrClosed], and frees the
// sockets.
func (s *Server) Close() error { return s.base.Close() }

// Serve advertises until ctx ends, and then returns nil; it does not take back
// what it said. It outlives the interface being down, having no carrier, and
// being opened anew by another QEMU, whose guest it tells at once. It returns
// [lease.ErrGone], wrapped, if the interface is deleted, and [lease.ErrClosed], wrapped,
// after Close. It may be called again after it has returned, but not twice at once.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	s.begin()
	sending.Go(func() { s.advertise(ctx) })
	return s.base.Serve(ctx)
}

// begin tells the guest now, and a few times more soon after.
func (s *Server) begin() { s.plan((*schedule).begin) }

// plan changes the schedule and has advertise look at it.
func (s *Server) plan(change func(*schedule, time.Time)) {
	s.mu.Lock()
	change(&s.schedule, time.Now())
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// advertise sends to all when it is due.
func (s *Server) advertise(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-timer.C:
		}
		if s.isDue(time.Now()) {
			sent, err := s.send(packet.MulticastMAC(allNodes), allNodes)
			if sent {
				s.noteSent(allNodes)
			}
			s.base.Drop(err)
		}
		s.mu.Lock()
		timer.Reset(time.Until(s.schedule.next))
		s.mu.Unlock()
	}
}

// isDue tells whether one to all is to be sent now, and plans the next. Where
// nobody is to hear it, none is: who comes is told at once then.
func (s *Server) isDue(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.schedule.next) {
		return false
	}
	// Asked under the lock, so that it is so before the schedule is told.
	if !s.base.Conn.Running() {
		s.schedule.skip(now)
		return false
	}
	s.schedule.sent(now)
	return true
}

// handle answers a solicitation: to who asks at once, to all if that is nobody
// yet (RFC 4861 §6.2.6).
func (s *Server) handle(frame []byte, checksumPending bool) error {
	from, err := parseSolicitation(frame, s.guest, checksumPending)
	if err != nil {
		return err
	}
	s.base.Later(func() { s.base.Received(solicitation, false, lease.Client{}, nil) })
	if !from.IsUnspecified() {
		sent, err := s.send(s.guest, from)
		if sent {
			s.base.Later(func() { s.noteSent(from) })
		}
		return err
	}
	s.plan((*schedule).hasten)
	return nil
}

// send sends all messages. That the interface is down is no error: the guest is told
// when it comes up.
func (s *Server) send(to mac.Addr, dst netip.Addr) (sent bool, err error) {
	p := packet.Packet6{
		SrcMAC: s.mac, DstMAC: to, Src: s.router, Dst: dst,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: packet.HopLimitND,
	}
	for _, m := range s.messages {
		frame := append(make([]byte, packet.Head6Len, packet.Head6Len+len(m)), m...)
		packet.Seal6(frame, p)
		err := s.base.Conn.Write(frame)
		if errors.Is(err, unix.ENETDOWN) {
			s.base.Log.Debug("interface is down")
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// noteSent keeps that the router was advertised.
func (s *Server) noteSent(dst netip.Addr) {
	kind := advertisement
	if dst == allNodes {
		kind = advertisementToAll
	}
	s.base.Log.Debug("router advertised", "to", dst)
	s.base.Update(func(e serve.Entry) { e.Sent[kind]++ })
}
