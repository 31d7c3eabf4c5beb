package prepare

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// settleTime is how long changes are collected before one looks: a prepare that
// puts things right is in between for some milliseconds, and somebody may change
// links without end.
const settleTime = 100 * time.Millisecond

// Watch tells how a network namespace differs from some plans, and when that may
// have changed. It stays in the network namespace in which it was opened, and
// needs no privileges after that. Look and Wait are for one goroutine each.
type Watch struct {
	plans  []Plan
	conn   *nl.Conn
	events *nl.Events
	knobs  knobFiles
}

// OpenWatch opens a Watch in the network namespace of the calling thread. Close it.
func OpenWatch(plans ...Plan) (_ *Watch, err error) {
	w := &Watch{plans: plans}
	if w.conn, err = nl.Open(); err != nil {
		return nil, err
	}
	if w.events, err = nl.Subscribe(unix.RTNLGRP_LINK); err != nil {
		w.conn.Close()
		return nil, err
	}
	w.knobs = openKnobs()
	return w, nil
}

// Look tells what differs from the plans now.
func (w *Watch) Look() ([]Difference, error) {
	links, err := w.conn.Links()
	if err != nil {
		return nil, err
	}
	return differencesOf(state{links: links, knobs: w.knobs.read()}, w.plans), nil
}

// Wait blocks until something may have changed since the Watch was opened or Wait
// last returned, or ctx ends. However much changes, it returns some ten times a
// second at most. After ctx has ended the Watch can only be closed. A sysctl that
// changes wakes nobody.
func (w *Watch) Wait(ctx context.Context) error {
	if err := w.events.Wait(ctx); err != nil {
		return err
	}
	settled := time.NewTimer(settleTime)
	defer settled.Stop()
	select {
	case <-settled.C:
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.events.Discard()
}

// Close closes the Watch.
func (w *Watch) Close() {
	w.conn.Close()
	w.events.Close()
	w.knobs.close()
}
