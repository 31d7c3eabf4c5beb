package nft

import (
	"context"
	"errors"
	"fmt"
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

	mu      sync.Mutex
	tables  tables
	changes int   // how often they have changed
	err     error // why they are not known; they are not, ever again
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

// Wait blocks until one of the tables has changed, or ctx ends. What frames put into a
// set changes none. After that the Watch can
// only be closed.
func (w *Watch) Wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var transaction []netlink.Message
	for {
		var messages []netlink.Message
		err := nl.AwaitEvent(w.conn)
		if err == nil {
			messages, err = w.conn.Receive()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			err = fmt.Errorf("receive nftables event: %w", err)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = err
			w.changes++
			return err
		}
		transaction = append(transaction, messages...)
		// The kernel ends each transaction with the number of its generation.
		if len(messages) == 0 || messages[len(messages)-1].Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
			continue
		}
		if w.apply(transaction) {
			return nil
		}
		transaction = nil
	}
}

func (w *Watch) apply(transaction []netlink.Message) (changed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, raw := range transaction {
		m, _ := parse(nl.Message{Type: uint16(raw.Header.Type), Flags: uint16(raw.Header.Flags), Data: raw.Data})
		changed = w.tables.apply(m) || changed
	}
	if changed {
		w.changes++
	}
	return changed
}

// Close closes the Watch.
func (w *Watch) Close() { _ = w.conn.Close() }
