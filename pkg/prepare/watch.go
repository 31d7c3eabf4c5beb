package prepare

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// settleTime is how long changes are collected before one looks: a prepare that
// puts things right is in between for some milliseconds, and somebody may change
// links without end.
const settleTime = 100 * time.Millisecond

// Watch tells how a network namespace differs from some plans, and when that may
// have changed. It stays in the network namespace in which it was opened, and
// needs no privileges after that. Its methods may be called at the same time, but
// none by two goroutines.
type Watch struct {
	plans     []Plan
	conn      *nl.Conn
	events    *nl.Events
	sysctls   engine.Sysctls
	tables    *nft.Watch // nil: unwatched says why
	unwatched error
	filtered  map[string]bool // taps that have had the checksum filter
	compared  *compared       // the tables with the plans; nil: not yet
}

// compared is how tables differed from plans. To encode what is planned anew takes most
// of the time of a look.
type compared struct {
	changes int            // of the tables until then
	indexes map[string]int // of links: rules name some by them
	found   []Difference
}

// OpenWatch opens a Watch in the network namespace of the calling thread. Without
// the capability NET_ADMIN it does not see the port guard and the answers for
// neighbours, and Unwatched says so. Close it.
func OpenWatch(plans ...Plan) (_ *Watch, err error) {
	if err := checkZero(plans...); err != nil {
		return nil, err
	}
	w := &Watch{plans: slices.Clone(plans), filtered: map[string]bool{}}
	if w.conn, err = nl.Open(); err != nil {
		return nil, err
	}
	groups := []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_TC}
	if slices.ContainsFunc(plans, isAddressed) {
		groups = append(groups, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	}
	if slices.ContainsFunc(plans, hasAnswers) { // for aliases, too
		groups = append(groups, unix.RTNLGRP_NEIGH)
	}
	if w.events, err = nl.Subscribe(groups...); err != nil {
		w.conn.Close()
		return nil, err
	}
	w.events.SkipLearned = true
	w.sysctls = engine.OpenSysctls(sysctlsOf(plans))
	if slices.ContainsFunc(plans, Plan.HasTables) {
		w.tables, err = nft.OpenWatch()
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) { // which may be had later
			w.Close()
			return nil, err
		}
		w.unwatched = engine.Explain(err)
	}
	return w, nil
}

func isAddressed(p Plan) bool { return p.NIC().Addressed }

func hasAnswers(p Plan) bool { return len(p.NIC().Answers) > 0 }

// Replace has the interface of the plan compared with that from now on, if it was opened
// with a plan of the same interface. It is not called while Look is.
func (w *Watch) Replace(plan Plan) {
	for i, p := range w.plans {
		if p.Interface.Name == plan.Interface.Name {
			w.plans[i], w.compared = plan, nil
		}
	}
}

// Look tells what differs from the plans now.
func (w *Watch) Look() ([]Difference, error) {
	links, err := w.conn.Links()
	if err != nil {
		return nil, err
	}
	s := &engine.State{Links: links, Sysctls: w.sysctls.Read()}
	if slices.ContainsFunc(w.plans, isAddressed) {
		if s.Interfaces, err = discover.ReadAssigned(w.conn.Messages); err != nil {
			return nil, err
		}
	}
	if err := s.ReadFilters(w.conn); err != nil {
		return nil, err
	}
	return slices.Concat(differencesOf(s, w.plans), w.tableDifferences(s), w.filterDifferences(s)), nil
}

// tableDifferences tells how the tables differ from the plans, as far as they are known.
func (w *Watch) tableDifferences(s *engine.State) []Difference {
	if w.tables == nil {
		return nil
	}
	changes, indexes := w.tables.Changes(), map[string]int{}
	for _, l := range s.Links {
		indexes[l.Name] = l.Index
	}
	if c := w.compared; c == nil || c.changes != changes || !maps.Equal(c.indexes, indexes) {
		s.Tables = w.tables.Now()
		w.compared = &compared{changes, indexes, nil}
		for _, p := range w.plans {
			if s.ByIndex(p.Interface.Index) == nil { // rules name it: nothing makes them whole again
				continue
			}
			d := engine.Differences{Interface: p.Interface.Name}
			d.Tables(s, p.wiring.Tables())
			w.compared.found = append(w.compared.found, d.Found...)
		}
	}
	return w.compared.found
}

// filterDifferences tells which taps have lost the checksum filter: whether one was
// ever there is not planned, since not every prepare may load it.
func (w *Watch) filterDifferences(s *engine.State) []Difference {
	var found []Difference
	for _, p := range w.plans {
		n := p.NIC()
		l := s.Link(n.Tap)
		switch {
		case l == nil || !n.Guard:
		case s.Filtered[l.Index]:
			w.filtered[l.Name] = true
		case w.filtered[l.Name]:
			found = append(found, Difference{Interface: n.Interface, What: "the checksum filter", Is: engine.Missing, Want: "at " + l.Name, Remedy: engine.PrepareAgain})
		}
	}
	return found
}

// Unwatched says why the Watch does not see the plans' nftables tables; nil: it
// does, or there are none.
func (w *Watch) Unwatched() error {
	if w.tables != nil {
		return w.tables.Failed()
	}
	return w.unwatched
}

// Wait blocks until links may have changed since the Watch was opened or Wait last
// returned, or ctx ends. However much changes, it returns some ten times a second
// at most. After ctx has ended the Watch can only be closed. A sysctl that changes
// wakes nobody.
func (w *Watch) Wait(ctx context.Context) error {
	if err := w.events.Wait(ctx); err != nil {
		return err
	}
	if err := settle(ctx); err != nil {
		return err
	}
	return w.events.Discard()
}

// WaitTables is Wait for the nftables tables. An error other than that of ctx is
// what Unwatched returns from then on.
func (w *Watch) WaitTables(ctx context.Context) error {
	if w.tables == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if err := w.tables.Wait(ctx); err != nil {
		return err
	}
	return settle(ctx)
}

// settle waits until what has begun to change is done.
func settle(ctx context.Context) error {
	settled := time.NewTimer(settleTime)
	defer settled.Stop()
	select {
	case <-settled.C:
	case <-ctx.Done():
	}
	return context.Cause(ctx)
}

// Close closes the Watch.
func (w *Watch) Close() {
	w.conn.Close()
	w.events.Close()
	w.sysctls.Close()
	if w.tables != nil {
		w.tables.Close()
	}
}

// WaitForwarding waits until frames pass between the tap and the network, or ctx
// ends. That is some time after a guest has opened the tap: the kernel notices the
// carrier later.
func (p Plan) WaitForwarding(ctx context.Context) error {
	if err := checkZero(p); err != nil {
		return err
	}
	events, err := nl.Subscribe(unix.RTNLGRP_LINK)
	if err != nil {
		return err
	}
	defer events.Close()
	for {
		s, err := engine.ReadLinks()
		if err != nil {
			return err
		}
		missing := p.wiring.Forwards(s)
		if missing == nil {
			return nil
		}
		if err := events.Wait(ctx); err != nil {
			return fmt.Errorf("wait for %w: %w", missing, err)
		}
	}
}
