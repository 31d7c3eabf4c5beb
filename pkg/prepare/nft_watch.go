package prepare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tableEventBuffer is enough for the events of some thousand rules.
const tableEventBuffer = 4 << 20

// tableWatch keeps our nftables tables as the kernel has them: as they are when it
// is opened, which takes NET_ADMIN, and from then on by the kernel's events, which
// takes nothing.
type tableWatch struct {
	conn *netlink.Conn

	mu     sync.Mutex
	tables map[tableID]tableNow
	err    error // why they are not known; they are not, ever again
}

// openTableWatch opens one in the network namespace of the calling thread. Without
// NET_ADMIN the error wraps [unix.EPERM].
func openTableWatch() (_ *tableWatch, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	w := &tableWatch{conn: conn}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("watch nftables: %w", err), conn.Close())
		}
	}()
	if err := conn.SetReadBuffer(tableEventBuffer); err != nil {
		return nil, err
	}
	// First: what changes while the tables are read comes as an event then, and to
	// hear of it twice does no harm.
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, explain(err)
	}
	if w.tables, err = readTables(); err != nil {
		return nil, err
	}
	return w, nil
}

// now returns the tables; nil: they are not known any more.
func (w *tableWatch) now() map[tableID]tableNow {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil
	}
	all := map[tableID]tableNow{}
	for id, t := range w.tables {
		all[id] = t.clone()
	}
	return all
}

// failed says why the tables are not known any more; nil: they are.
func (w *tableWatch) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (n tableNow) clone() tableNow {
	n.chains = maps.Clone(n.chains)
	for name, c := range n.chains {
		c.rules = slices.Clone(c.rules)
		n.chains[name] = c
	}
	return n
}

// wait blocks until some table has changed, or ctx ends. After that the watch can
// only be closed.
func (w *tableWatch) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var transaction []netlink.Message
	for {
		messages, err := w.conn.Receive()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			err = fmt.Errorf("receive nftables event: %w", err)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.err = err
			return err
		}
		transaction = append(transaction, messages...)
		// The kernel ends each transaction with the number of its generation.
		if len(messages) == 0 || messages[len(messages)-1].Header.Type != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
			continue
		}
		w.mu.Lock()
		for _, m := range transaction {
			w.apply(m)
		}
		w.mu.Unlock()
		return nil
	}
}

func (w *tableWatch) close() { _ = w.conn.Close() }

// tableEvent is what an event says of a table, a chain or a rule (enum
// nft_table_attributes and others, linux/netfilter/nf_tables.h).
type tableEvent struct {
	table tableID
	flags uint32
	chain nftables.Chain
	rule  ruleNow // without lets, which nobody asks for here
	after uint64  // handle of the rule before
}

// apply follows one event. One that can't be read leaves the tables unlike the
// planned ones, if it is of ours.
func (w *tableWatch) apply(m netlink.Message) {
	kind := int(m.Header.Type) & 0xff
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return
	}
	e, ours := parseTableEvent(kind, m.Data)
	if !ours {
		return
	}
	table, there := w.tables[e.table]
	name := e.chain.Name
	switch kind {
	case unix.NFT_MSG_NEWTABLE:
		if !there {
			table.chains = map[string]chainNow{}
		}
		table.flags = e.flags
		w.tables[e.table] = table
		return
	case unix.NFT_MSG_DELTABLE:
		delete(w.tables, e.table)
		return
	}
	if !there {
		return
	}
	chain := table.chains[name]
	switch kind {
	case unix.NFT_MSG_NEWCHAIN:
		chain.chain = e.chain
	case unix.NFT_MSG_DELCHAIN:
		delete(table.chains, name)
		return
	case unix.NFT_MSG_NEWRULE:
		chain.put(e.rule, e.after, m.Header.Flags&netlink.Append != 0)
	case unix.NFT_MSG_DELRULE:
		chain.rules = slices.DeleteFunc(chain.rules, func(r ruleNow) bool { return r.handle == e.rule.handle })
	default:
		return
	}
	table.chains[name] = chain
}

// put puts a rule behind another. The kernel names none for the first rule and for
// the last, which is marked as appended (nf_tables_rule_notify,
// net/netfilter/nf_tables_api.c).
func (n *chainNow) put(r ruleNow, after uint64, last bool) {
	at := func(handle uint64) int {
		return slices.IndexFunc(n.rules, func(r ruleNow) bool { return r.handle == handle })
	}
	switch i := at(r.handle); {
	case i >= 0: // it was read already
		n.rules[i] = r
	case after == 0 && last:
		n.rules = append(n.rules, r)
	default:
		n.rules = slices.Insert(n.rules, at(after)+1, r)
	}
}

// parseTableEvent reads an event; ours tells whether it is about one of our tables.
func parseTableEvent(kind int, b []byte) (e tableEvent, ours bool) {
	for f, number := range families {
		if byte(number) == b[0] {
			e.table.family = f
		}
	}
	attrs, err := netlink.NewAttributeDecoder(b[4:]) // behind struct nfgenmsg
	if err != nil || e.table.family == "" {
		return e, false
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		switch {
		case attrs.Type() == unix.NFTA_TABLE_NAME: // as NFTA_CHAIN_TABLE and NFTA_RULE_TABLE
			e.table.name = attrs.String()
		case kind == unix.NFT_MSG_NEWTABLE || kind == unix.NFT_MSG_DELTABLE:
			if attrs.Type() == unix.NFTA_TABLE_FLAGS {
				attrs.ByteOrder = binary.NativeEndian // as the library has it, which reads the tables
				e.flags = attrs.Uint32()
				attrs.ByteOrder = binary.BigEndian
			}
		case kind == unix.NFT_MSG_NEWCHAIN || kind == unix.NFT_MSG_DELCHAIN:
			e.parseChain(attrs)
		case kind == unix.NFT_MSG_NEWRULE || kind == unix.NFT_MSG_DELRULE:
			e.parseRule(attrs)
		}
	}
	return e, strings.HasPrefix(e.table.name, tablePrefix)
}

func (e *tableEvent) parseChain(attrs *netlink.AttributeDecoder) {
	switch attrs.Type() {
	case unix.NFTA_CHAIN_NAME:
		e.chain.Name = attrs.String()
	case unix.NFTA_CHAIN_TYPE:
		e.chain.Type = nftables.ChainType(attrs.String())
	case unix.NFTA_CHAIN_POLICY:
		e.chain.Policy = new(nftables.ChainPolicy(attrs.Uint32()))
	case unix.NFTA_CHAIN_HOOK:
		attrs.Nested(func(hook *netlink.AttributeDecoder) error {
			hook.ByteOrder = binary.BigEndian
			for hook.Next() {
				switch hook.Type() {
				case unix.NFTA_HOOK_HOOKNUM:
					e.chain.Hooknum = new(nftables.ChainHook(hook.Uint32()))
				case unix.NFTA_HOOK_PRIORITY:
					e.chain.Priority = new(nftables.ChainPriority(int32(hook.Uint32())))
				}
			}
			return nil
		})
	}
}

func (e *tableEvent) parseRule(attrs *netlink.AttributeDecoder) {
	switch attrs.Type() {
	case unix.NFTA_RULE_CHAIN:
		e.chain.Name = attrs.String()
	case unix.NFTA_RULE_HANDLE:
		e.rule.handle = attrs.Uint64()
	case unix.NFTA_RULE_POSITION:
		e.after = attrs.Uint64()
	case unix.NFTA_RULE_USERDATA:
		e.rule.comment, _ = userdata.GetString(attrs.Bytes(), userdata.TypeComment)
	}
}
