package packet

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// Loop is what Conn.Run does with what it sees.
type Loop struct {
	// Budget is how many frames per second, and at once, are read. The kernel
	// drops what is beyond. At least 1.
	Budget int
	// Frame deals with one frame, which is overwritten after the next Quiet.
	// With checksumPending the sender left the checksum to hardware that a tap
	// does not have: it is not there yet, and nothing can have damaged the packet.
	Frame func(b []byte, checksumPending bool)
	// Quiet is called some milliseconds after a frame, or sooner after several, and
	// before Run returns: what an answer to the guest need not wait for can be done then.
	Quiet func()
	// Error is told what Run outlives: ErrTooLong, unix.ENETDOWN each time the
	// interface goes down, lack of memory and the like.
	Error func(error)
	// Changed is told, on a goroutine of its own, the interface's flags (IFF_UP, …) at each
	// change of it, such as a guest's that opens the tap, or closes it. It may be told none
	// just before those that there are: then there were others meanwhile.
	Changed func(flags uint32)
}

// Run reads until ctx ends, and then returns nil. It outlives the interface
// being down, having no carrier, and being opened anew by another QEMU. It
// returns ErrGone if the interface is deleted, os.ErrClosed after Close. It may
// be called again after it has returned, but not twice at once.
func (c *Conn) Run(ctx context.Context, l Loop) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watchers sync.WaitGroup
	defer watchers.Wait()
	c.setDeadline(time.Time{})
	interrupted := make(chan struct{})
	context.AfterFunc(ctx, func() {
		c.setDeadline(time.Unix(1, 0))
		close(interrupted)
	})
	defer func() {
		cancel(nil)
		<-interrupted
	}()
	watchers.Go(func() {
		if c.follow(l.Changed) {
			cancel(ErrGone)
		}
	})
	err := c.loop(ctx, l)
	if gone := context.Cause(ctx); errors.Is(gone, ErrGone) {
		return gone
	}
	return err
}

// follow tells the interface's flags at each change of it, until the watch is interrupted
// or closed, or gone is true: the interface is deleted.
func (c *Conn) follow(changed func(flags uint32)) (gone bool) {
	for {
		flags, err := c.watch.Next()
		if err != nil {
			return errors.Is(err, unix.ENODEV)
		}
		if changed(flags); flags == 0 {
			changed(c.Flags())
		}
	}
}

// quietAfter is how long after a frame Quiet is called: a client takes an offer within
// this time. framesKept is after how many it is called at the latest.
const (
	quietAfter = 5 * time.Millisecond
	framesKept = 4
)

// loop reads frames and deals with them one after the other. The buffers are there
// from the start. While the budget is spent nothing is read, so that a guest that sends
// without end costs the kernel's receive buffer and no more: what does not fit there is
// dropped before it wakes us.
func (c *Conn) loop(ctx context.Context, l Loop) error {
	var frames [framesKept][MaxFrame]byte
	kept := 0
	quiet := func() {
		l.Quiet()
		kept = 0
	}
	defer quiet()
	budget := rate.NewLimiter(rate.Limit(l.Budget), l.Budget)
	for {
		if kept == framesKept || budget.Tokens() < 1 {
			quiet()
		}
		if budget.Wait(ctx) != nil {
			<-ctx.Done() // Wait does not await a deadline that comes before the next frame's turn
			return nil
		}
		n, checksumPending, err := c.read(frames[kept][:])
		for errors.Is(err, errQuiet) {
			quiet()
			n, checksumPending, err = c.read(frames[kept][:])
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx is a good end
		case err == nil:
			l.Frame(frames[kept][:n], checksumPending)
			kept++
			if err := c.ready.alarm(quietAfter); err != nil {
				l.Error(err)
			}
		case errors.Is(err, os.ErrClosed):
			return err
		default:
			l.Error(err) // the budget keeps this from spinning
		}
	}
}
