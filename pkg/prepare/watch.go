package prepare

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Watch tells whether the links are there through which the VMs of some plans
// reach the network. It needs no privileges, and stays in the network namespace
// in which it was opened. It is for one goroutine.
type Watch struct {
	conn   *nl.Conn
	events *nl.Events
	names  []string
}

// OpenWatch opens a Watch in the network namespace of the calling thread. Close it.
func OpenWatch(plans ...Plan) (*Watch, error) {
	w := &Watch{}
	for _, p := range plans {
		w.names = append(w.names, p.Bridge.Uplink, p.Bridge.Name, p.Tap.Name)
	}
	var err error
	if w.conn, err = nl.Open(); err != nil {
		return nil, err
	}
	if w.events, err = nl.Subscribe(unix.RTNLGRP_LINK); err != nil {
		w.conn.Close()
		return nil, err
	}
	return w, nil
}

// Missing returns the names of the links that are not there.
func (w *Watch) Missing() ([]string, error) {
	links, err := w.conn.Links()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(w.names), func(name string) bool {
		return slices.ContainsFunc(links, func(l nl.Link) bool { return l.Name == name })
	}), nil
}

// Wait blocks until some link has changed since the Watch was opened or Wait last
// returned, or ctx ends. After that the Watch can only be closed.
func (w *Watch) Wait(ctx context.Context) error { return w.events.Wait(ctx) }

// Close closes the Watch.
func (w *Watch) Close() {
	w.conn.Close()
	w.events.Close()
}
