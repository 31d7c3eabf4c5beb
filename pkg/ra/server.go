package ra

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// budget is how many solicitations per second, and at once, are looked at.
// Hosts send three, four seconds apart (RFC 4861 §10).
const budget = 16

var allNodes = netip.IPv6LinkLocalAllNodes()

// Server advertises one router on one Conn. Make it with NewServer; its methods
// can be called from any goroutine.
type Server struct {
	// Interval is the longest time between advertisements to all that nobody
	// asked for (MaxRtrAdvInterval), from 4 seconds on. 0: 600 seconds, or a third
	// of a lifetime that is shorter. Set before Serve.
	Interval time.Duration

	conn    *packet.Conn
	guest   packet.MAC
	log     *slog.Logger
	journal *journal.Journal
	wake    chan struct{} // the schedule has changed

	mu       sync.Mutex
	router   netip.Addr
	mac      packet.MAC
	messages [][]byte
	natural  time.Duration // what an Interval of 0 is
	schedule schedule
}

// NewServer returns a server that will advertise on conn, which stays the
// caller's to close, after Serve has returned, to the guest with this Ethernet
// address. It fails if the advertisement is not valid. What of it can't be sent
// is left out, and noted in the log and in the status. A nil log is silent.
func NewServer(conn *Conn, guest net.HardwareAddr, a Advertisement, log *slog.Logger) (*Server, error) {
	if !isHost(guest) {
		return nil, fmt.Errorf("advertise router to %q: not a host's Ethernet address", guest)
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log = log.With("interface", conn.link.Name())
	s := &Server{
		conn:    conn.link,
		guest:   packet.MACOf(guest),
		log:     log,
		journal: journal.New("router advertisements", conn.link.Name(), log, conn.link.Dropped),
		wake:    make(chan struct{}, 1),
	}
	if err := s.SetAdvertisement(a); err != nil {
		return nil, err
	}
	return s, nil
}

// SetAdvertisement puts another advertisement in the place of the one so far,
// and tells the guest. What the guest was told of before and is not in it any
// more stays with the guest until its lifetime ends.
func (s *Server) SetAdvertisement(a Advertisement) error {
	messages, left, err := a.Encode()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.router, s.mac, s.messages = a.Router.WithZone(""), packet.MACOf(a.MAC), messages
	s.natural = a.interval()
	s.mu.Unlock()
	s.journal.SetLease(netip.Prefix{}, left)
	s.begin()
	return nil
}

// Serve advertises until ctx ends, and then returns nil; it does not take back
// what it said. It outlives the interface being down, having no carrier, and
// being opened anew by another QEMU, whose guest it tells at once. It returns
// ErrGone, wrapped, if the interface is deleted. It may be called again after
// it has returned, but not twice at once.
func (s *Server) Serve(ctx context.Context) error {
	if s.Interval != 0 && (s.Interval < minInterval || s.Interval > maxInterval) {
		return fmt.Errorf("advertise router on %s: interval %v is not within %v and %v", s.conn.Name(), s.Interval, minInterval, maxInterval)
	}
	ctx, cancel := context.WithCancel(ctx)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	s.begin()
	sending.Go(func() { s.advertise(ctx) })

	return s.journal.Serve(ctx, s.conn, packet.Loop{
		Budget: budget,
		Frame:  s.handle,
		Up:     s.begin,
	})
}

// begin tells the guest now, and a few times more soon after.
func (s *Server) begin() {
	s.plan(func(c *schedule, now time.Time) {
		c.interval = cmp.Or(s.Interval, s.natural)
		c.begin(now)
	})
}

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
			s.send(packet.MulticastMAC(allNodes), allNodes)
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
	if !s.conn.Running() {
		s.schedule.skip(now)
		return false
	}
	s.schedule.sent(now)
	return true
}

// handle answers a solicitation: to who asks at once, to all if that is nobody
// yet (RFC 4861 §6.2.6).
func (s *Server) handle(frame []byte, checksumPending bool) {
	from, err := parseSolicitation(frame, s.guest, checksumPending)
	if err != nil {
		s.journal.Refuse(err)
		return
	}
	s.journal.Write(func(e journal.Entry) {
		e.Received(solicitation)
		e.Message(solicitation)
	})
	if from.IsUnspecified() {
		s.plan((*schedule).hasten)
		return
	}
	s.send(s.guest, from)
}

// send sends all messages.
func (s *Server) send(to packet.MAC, dst netip.Addr) {
	s.mu.Lock()
	messages := s.messages
	p := packet.Packet6{
		SrcMAC: s.mac, DstMAC: to, Src: s.router, Dst: dst,
		Protocol: unix.IPPROTO_ICMPV6, HopLimit: hopLimit,
	}
	s.mu.Unlock()
	for _, m := range messages {
		frame := append(make([]byte, packet.Head6Len, packet.Head6Len+len(m)), m...)
		packet.Seal6(frame, p)
		if err := s.conn.Write(frame); err != nil {
			s.unsent(err)
			return
		}
	}
	kind := advertisement
	if dst == allNodes {
		kind = advertisementToAll
	}
	s.log.Debug("router advertised", "to", dst)
	s.journal.Write(func(e journal.Entry) { e.Sent(kind) })
}

// unsent deals with an error of sending. That the interface is down is none: the
// guest is told when it comes up.
func (s *Server) unsent(err error) {
	if errors.Is(err, unix.ENETDOWN) {
		s.log.Debug("interface is down")
		return
	}
	s.journal.Unsent(err)
}
