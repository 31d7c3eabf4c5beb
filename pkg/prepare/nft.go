package prepare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// table is an nftables table of ours. Its chains stand in the order in which
// they are made.
type table struct {
	family family
	name   string
	chains []chain
}

// family is nft(8)'s word for an address family.
type family string

// chain is a chain; a base chain if it has a hook.
type chain struct {
	name   string
	hook   string // prerouting, forward, input, output, ingress; empty: only jumped to
	device string // of an ingress hook
	rules  []rule
}

// rule is what nft(8) writes and what the kernel takes.
type rule struct {
	text  string
	exprs []expr.Any
	// drops is what the rule's counter counts; nil: nothing that anybody is told.
	drops *dropKey
	// sendTo is the device by which the frame leaves after exprs, instead of
	// going on; empty: exprs are all.
	sendTo string
}

const (
	bridgeFamily family = "bridge"
	netdevFamily family = "netdev"
)

var (
	families = map[family]nftables.TableFamily{bridgeFamily: nftables.TableFamilyBridge, netdevFamily: nftables.TableFamilyNetdev}
	hooks    = map[string]*nftables.ChainHook{
		"prerouting": nftables.ChainHookPrerouting, "forward": nftables.ChainHookForward, "input": nftables.ChainHookInput,
		"output": nftables.ChainHookOutput, "ingress": nftables.ChainHookIngress,
	}
	// filterPriorities are nft(8)'s "priority filter" (NF_BR_PRI_FILTER_BRIDGED,
	// linux/netfilter_bridge.h; NF_IP_PRI_FILTER, linux/netfilter_ipv4.h).
	filterPriorities = map[family]nftables.ChainPriority{bridgeFamily: -200, netdevFamily: 0}
)

// tablePrefix begins the name of every table of ours.
const tablePrefix = "virt-launcher-net-"

// tableID names a table among all.
type tableID struct {
	family family
	name   string
}

func (t table) id() tableID { return tableID{t.family, t.name} }

// String returns the table in nft(8)'s language.
func (t table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "nft add table %s %s", t.family, t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, "\nnft add chain %s %s %s", t.family, t.name, c.name)
		switch {
		case c.device != "":
			fmt.Fprintf(&b, " '{ type filter hook %s device %s priority filter; policy accept; }'", c.hook, c.device)
		case c.hook != "":
			fmt.Fprintf(&b, " '{ type filter hook %s priority filter; policy accept; }'", c.hook)
		}
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\nnft add rule %s %s %s %s", t.family, t.name, c.name, quoted(r.text))
		}
	}
	return b.String()
}

// quoted keeps a shell's hands off a rule.
func quoted(rule string) string {
	if strings.ContainsAny(rule, "&<>;{}") {
		return "'" + rule + "'"
	}
	return rule
}

// tableOps makes the table, or makes it anew if it is not the planned one. It
// stays, whatever comes of the changes after it, where a VM may be on the tap.
func tableOps(s state, t table, tap string) []op {
	switch now, there := s.tables[t.id()]; {
	case !there:
		return []op{addTable{table: t, stays: s.link(tap) != nil}}
	case now.differs(t, s.index) != "":
		return []op{addTable{table: t, replace: true, stays: true}}
	}
	return nil
}

// dropTableOps deletes the table if it is there.
func dropTableOps(s state, t table) []op {
	if _, there := s.tables[t.id()]; there {
		return []op{delTable{t}}
	}
	return nil
}

// addTable makes a table.
type addTable struct {
	table table
	// replace is for a table that is there already. Elsewhere it would cost
	// the kernel some milliseconds to wait for readers of nothing.
	replace bool
	// stays: it is not undone. A table of ours that is replaced was not whole,
	// so the old one is not worth coming back to, and a VM that may be on the
	// tap must never be without.
	stays bool
}

func (o addTable) String() string {
	if o.replace {
		return delTable{o.table}.String() + "\n" + o.table.String()
	}
	return o.table.String()
}

func (o addTable) inverse() op {
	if o.stays {
		return nil
	}
	return delTable{o.table}
}

// delTable deletes a table.
type delTable struct{ table table }

func (o delTable) String() string {
	return fmt.Sprintf("nft delete table %s %s", o.table.family, o.table.name)
}

func (o delTable) inverse() op { return addTable{table: o.table} }

// do makes the table in one transaction: no frame passes a half-made one.
func (o addTable) do(k *kernel) error {
	conn, err := nftables.New(nftables.WithSockOptions(roomForEchoes))
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	t := &nftables.Table{Family: families[o.table.family], Name: o.table.name}
	conn.AddTable(t)
	if o.replace { // made first, so that it is no error if it has just gone
		conn.DelTable(t)
		conn.AddTable(t)
	}
	chains := make([]*nftables.Chain, len(o.table.chains)) // all before the first rule: rules name them
	for i, c := range o.table.chains {
		made := &nftables.Chain{Name: c.name, Table: t, Device: c.device}
		if c.hook != "" {
			policy, priority := nftables.ChainPolicyAccept, filterPriorities[o.table.family]
			made.Type, made.Hooknum, made.Policy, made.Priority = nftables.ChainTypeFilter, hooks[c.hook], &policy, &priority
		}
		chains[i] = conn.AddChain(made)
	}
	for i, c := range o.table.chains {
		for _, r := range c.rules {
			index := 0
			if r.sendTo != "" {
				if index, err = k.conn.Index(r.sendTo); err != nil {
					return err
				}
			}
			comment := userdata.AppendString(nil, userdata.TypeComment, r.digest(o.table.family, index))
			conn.AddRule(&nftables.Rule{Table: t, Chain: chains[i], Exprs: r.resolve(index), UserData: comment})
		}
	}
	err = conn.Flush()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return withoutTables(o.table, err)
	}
	return err
}

// roomForEchoes gives a socket room for what the kernel says to each rule of a
// transaction before anything of it is read. A user namespace's root gets twice the
// usual (net.core.rmem_max).
func roomForEchoes(conn *netlink.Conn) error { return conn.SetReadBuffer(4 << 20) }

// resolve returns the rule's expressions. A device to send to goes by its index.
func (r rule) resolve(index int) []expr.Any {
	if r.sendTo == "" {
		return r.exprs
	}
	return append(slices.Clip(r.exprs),
		&expr.Immediate{Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index))},
		&expr.Dup{RegDev: unix.NFT_REG_1, IsRegDevSet: true},
		&expr.Verdict{Kind: expr.VerdictDrop})
}

func (o delTable) do(*kernel) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: families[o.table.family], Name: o.table.name})
	return ignore(conn.Flush(), unix.ENOENT)
}
