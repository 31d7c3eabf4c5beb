package nft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// eventBuffer is enough for the events of some thousand rules.
const eventBuffer = 4 << 20

// Watch keeps tables as the kernel has them: as they are when it is opened, which
// takes NET_ADMIN, and from then on by the kernel's events, which takes nothing.
type Watch struct {
	conn *netlink.Conn

	mu          sync.Mutex
	transaction []nl.Message // of which events have come
	tables      tables
	changes     int   // how often they have changed
	told        int   // how often when Wait last returned
	err         error // why they are not known; they are not, ever again
}

// OpenWatch opens a Watch of the tables that [Read] returns, in the network namespace
// of the calling thread. Without NET_ADMIN the error wraps [unix.EPERM]. Close it.
func OpenWatch() (_ *Watch, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	w := &Watch{conn: conn}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("watch nftables: %w", err), conn.Close())
		}
	}()
	if err := conn.SetReadBuffer(eventBuffer); err != nil {
		return nil, err
	}
	// First: what changes while the tables are read comes as an event then, and to
	// hear of it twice does no harm.
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, err
	}
	if w.tables, err = Read(); err != nil {
		return nil, err
	}
	return w, nil
}

// Changes is how often the tables have changed, or were not known any more, since the
// Watch was opened.
func (w *Watch) Changes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.receive(); w.changes != w.told {
		w.wake() // a Wait, which sees none of the events
	}
	return w.changes
}

// Now returns the tables; nil: they are not known any more.
func (w *Watch) Now() map[ID]Present {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil
	}
	all := map[ID]Present{}
	for id, t := range w.tables {
		all[id] = t.clone()
	}
	return all
}

// Failed says why the tables are not known any more; nil: they are.
func (w *Watch) Failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Wait blocks until one of the tables has changed since it was opened or Wait last
// returned, or ctx ends. What frames put into a set changes none. After that the Watch can
// only be closed.
func (w *Watch) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, w.wake)
	defer stop()
	for {
		if err := w.conn.SetReadDeadline(time.Time{}); err != nil { // which wake has ended
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if changed, err := w.news(); changed || err != nil {
			return err
		}
		if err := nl.AwaitEvent(w.conn); err != nil && ctx.Err() == nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.fail(err)
		}
	}
}

// wake ends an AwaitEvent.
func (w *Watch) wake() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) }

// news tells whether the tables have changed since it last did.
func (w *Watch) news() (changed bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.receive()
	changed = w.changes != w.told
	w.told = w.changes
	return changed, w.err
}

// receive takes over all events that there are. The kernel sends those of a transaction
// before it confirms it, so afterwards the tables are as whoever made it left them. The
// lock is held.
func (w *Watch) receive() {
	for w.err == nil {
		messages, err := nl.ReceiveEvent(w.conn)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			_ = w.fail(err)
			return
		}
		w.transaction = append(w.transaction, messages...)
		// The kernel ends each transaction with the number of its generation.
		if len(messages) == 0 || messages[len(messages)-1].Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
			continue
		}
		changed := false
		for _, raw := range w.transaction {
			m, _ := parse(raw)
			changed = w.tables.apply(m) || changed
		}
		w.transaction = nil
		if changed {
			w.changes++
		}
	}
}

// fail says that the tables are not known any more. The lock is held.
func (w *Watch) fail(err error) error {
	w.err = fmt.Errorf("receive nftables event: %w", err)
	w.changes++
	return w.err
}

// Close closes the Watch.
func (w *Watch) Close() { _ = w.conn.Close() }
