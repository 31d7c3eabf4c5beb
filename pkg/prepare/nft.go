package prepare

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
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
			fmt.Fprintf(&b, " { type filter hook %s device %s priority filter; policy accept; }", c.hook, c.device)
		case c.hook != "":
			fmt.Fprintf(&b, " { type filter hook %s priority filter; policy accept; }", c.hook)
		}
	}
	for _, c := range t.chains {
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\nnft add rule %s %s %s %s", t.family, t.name, c.name, r.text)
		}
	}
	return b.String()
}

// digest names the table's content; the kernel keeps it as a comment, by which
// a later run sees whether the table is the planned one.
func (t table) digest() string {
	sum := sha256.Sum256([]byte(t.String()))
	return hex.EncodeToString(sum[:8])
}

// tableOps makes the table, or makes it anew if it is not the planned one.
func tableOps(s state, t table) []op {
	switch digest, there := s.tables[t.id()]; {
	case !there:
		return []op{addTable{table: t}}
	case digest != t.digest():
		return []op{addTable{table: t, replace: true}}
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
}

func (o addTable) String() string {
	if o.replace {
		return delTable{o.table}.String() + "\n" + o.table.String()
	}
	return o.table.String()
}

func (o addTable) inverse() op { return delTable{o.table} }

// delTable deletes a table.
type delTable struct{ table table }

func (o delTable) String() string {
	return fmt.Sprintf("nft delete table %s %s", o.table.family, o.table.name)
}

func (o delTable) inverse() op { return addTable{table: o.table} }

// do makes the table in one transaction: no frame passes a half-made one.
func (o addTable) do(k *kernel) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	t := &nftables.Table{Family: families[o.table.family], Name: o.table.name}
	if o.replace {
		conn.DelTable(t)
	}
	conn.AddTable(t)
	comment := userdata.AppendString(nil, userdata.TypeComment, o.table.digest())
	for _, c := range o.table.chains {
		made := &nftables.Chain{Name: c.name, Table: t, Device: c.device}
		if c.hook != "" {
			policy, priority := nftables.ChainPolicyAccept, filterPriorities[o.table.family]
			made.Type, made.Hooknum, made.Policy, made.Priority = nftables.ChainTypeFilter, hooks[c.hook], &policy, &priority
		}
		conn.AddChain(made)
		for _, r := range c.rules {
			exprs, err := r.resolve(k.conn)
			if err != nil {
				return err
			}
			conn.AddRule(&nftables.Rule{Table: t, Chain: made, Exprs: exprs, UserData: comment})
			comment = nil // on the first rule only
		}
	}
	err = conn.Flush()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) {
		return withoutTables(o.table, err)
	}
	return err
}

// resolve returns the rule's expressions. A device to send to goes by its index,
// which is known only now.
func (r rule) resolve(conn *nl.Conn) ([]expr.Any, error) {
	if r.sendTo == "" {
		return r.exprs, nil
	}
	index, err := conn.Index(r.sendTo)
	if err != nil {
		return nil, err
	}
	return append(slices.Clip(r.exprs),
		&expr.Immediate{Register: unix.NFT_REG_1, Data: binary.NativeEndian.AppendUint32(nil, uint32(index))},
		&expr.Dup{RegDev: unix.NFT_REG_1, IsRegDevSet: true},
		&expr.Verdict{Kind: expr.VerdictDrop}), nil
}

func (o delTable) do(*kernel) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: families[o.table.family], Name: o.table.name})
	return ignore(conn.Flush(), unix.ENOENT)
}

// readTables returns the digests of our tables that are there.
func readTables() (map[tableID]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	digests := map[tableID]string{}
	for _, f := range []family{bridgeFamily, netdevFamily} {
		tables, err := conn.ListTablesOfFamily(families[f])
		if isUnsupported(err) {
			continue // a kernel without nftables has no tables; making one will say so
		}
		if err != nil {
			return nil, fmt.Errorf("read nftables: %w", explain(err))
		}
		for _, t := range tables {
			if !strings.HasPrefix(t.Name, tablePrefix) {
				continue
			}
			if digests[tableID{f, t.Name}], err = readDigest(conn, t); err != nil {
				return nil, err
			}
		}
	}
	return digests, nil
}

func isUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) ||
		errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EINVAL)
}

// readDigest finds the comment on the first rule of the first chain that has
// any, or "" if there is none.
func readDigest(conn *nftables.Conn, t *nftables.Table) (string, error) {
	for _, name := range []string{guardFirstChain, guardOnlyChain, answersChain} {
		rules, err := conn.GetRules(t, &nftables.Chain{Name: name, Table: t})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return "", fmt.Errorf("read nftables table %s: %w", t.Name, err)
		}
		if len(rules) > 0 {
			digest, _ := userdata.GetString(rules[0].UserData, userdata.TypeComment)
			return digest, nil
		}
	}
	return "", nil
}
