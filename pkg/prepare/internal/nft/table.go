// Package nft has nftables tables as values: their text for nft(8), their bytes for
// the kernel, made of the same words, and how what the kernel has differs.
package nft

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Family is an address family of nftables.
type Family struct {
	Name     string // nft(8)'s
	Number   nftables.TableFamily
	Filter   nftables.ChainPriority // nft(8)'s "priority filter"
	Ethernet bool                   // all of its frames are Ethernet's
	Config   string                 // the kernel's option for it
}

// Netdev is the family of what links receive and send (NF_IP_PRI_FILTER,
// linux/netfilter_ipv4.h).
var Netdev = Family{Name: "netdev", Number: nftables.TableFamilyNetdev, Config: "CONFIG_NF_TABLES_NETDEV"}

// Prefix begins the name of each table of ours; a pod interface's follows.
const Prefix = "virt-launcher-net-"

// Table is an nftables table. Its chains are in the order in which they are made.
type Table struct {
	Family Family
	Name   string
	Chains []Chain
	// Purpose is what is made of the table, and Without the way out without it, for
	// where the kernel can't have it.
	Purpose, Without string
}

// Chain is a chain; a base chain if it has a hook.
type Chain struct {
	Name   string
	Hook   string // prerouting, forward, input, output, ingress; empty: only jumped to
	Device string // of an ingress hook
	Rules  []Rule
}

// ID names a table among all.
type ID struct {
	Family nftables.TableFamily
	Name   string
}

// ID returns the table's.
func (t Table) ID() ID { return ID{t.Family.Number, t.Name} }

// String names the table as nft(8) does.
func (t Table) String() string { return t.Family.Name + " " + t.Name }

// Add returns what makes the table, in nft(8)'s language; with replace, one that is
// there already is deleted first.
func (t Table) Add(replace bool) string {
	var b strings.Builder
	if replace {
		b.WriteString(t.DeleteText() + "\n")
	}
	fmt.Fprintf(&b, "nft add table %s", t)
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\nnft add chain %s %s", t, c.Name)
		switch {
		case c.Device != "":
			fmt.Fprintf(&b, " '{ type filter hook %s device %s priority filter; policy accept; }'", c.Hook, c.Device)
		case c.Hook != "":
			fmt.Fprintf(&b, " '{ type filter hook %s priority filter; policy accept; }'", c.Hook)
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\nnft add rule %s %s %s", t, c.Name, quoted(r.text(t.Family)))
		}
	}
	return b.String()
}

// DeleteText returns what deletes the table, in nft(8)'s language.
func (t Table) DeleteText() string { return "nft delete table " + t.String() }

// quoted keeps a shell's hands off a rule.
func quoted(rule string) string {
	if strings.ContainsAny(rule, "&<>;{}") {
		return "'" + rule + "'"
	}
	return rule
}

// Write makes the table in one transaction, so that no frame passes a half-made one,
// in the network namespace of the calling thread. With replace there may be one
// already, which makes the kernel wait some milliseconds. See [Unsupported] for the
// error of a kernel that can't have it.
func (t Table) Write(replace bool) error {
	conn, err := nftables.New(nftables.WithSockOptions(roomForEchoes))
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	table := &nftables.Table{Family: t.Family.Number, Name: t.Name}
	conn.AddTable(table)
	if replace { // made first, so that it is no error if it has just gone
		conn.DelTable(table)
		conn.AddTable(table)
	}
	chains := make([]*nftables.Chain, len(t.Chains)) // all before the first rule: rules name them
	for i, c := range t.Chains {
		made := &nftables.Chain{Name: c.Name, Table: table, Device: c.Device}
		if c.Hook != "" {
			policy := nftables.ChainPolicyAccept
			made.Type, made.Hooknum, made.Policy, made.Priority = nftables.ChainTypeFilter, hooks[c.Hook], &policy, &t.Family.Filter
		}
		chains[i] = conn.AddChain(made)
	}
	for i, c := range t.Chains {
		for _, r := range c.Rules {
			index, err := indexOf(r.last().link)
			if err != nil {
				return err
			}
			exprs := r.exprs(t.Family, index)
			comment := userdata.AppendString(nil, userdata.TypeComment, r.digest(t.Family, exprs))
			conn.AddRule(&nftables.Rule{Table: table, Chain: chains[i], Exprs: exprs, UserData: comment})
		}
	}
	return conn.Flush()
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "forward": nftables.ChainHookForward, "input": nftables.ChainHookInput,
	"output": nftables.ChainHookOutput, "ingress": nftables.ChainHookIngress,
}

// roomForEchoes gives a socket room for what the kernel says to each rule of a
// transaction before anything of it is read. A user namespace's root gets twice the
// usual (net.core.rmem_max).
func roomForEchoes(conn *netlink.Conn) error { return conn.SetReadBuffer(4 << 20) }

func indexOf(link string) (int, error) {
	if link == "" {
		return 0, nil
	}
	conn, err := nl.Open()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	return conn.Index(link)
}

// Delete deletes the table in the network namespace of the calling thread. It is no
// error if there is none.
func (t Table) Delete() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: t.Family.Number, Name: t.Name})
	if err := conn.Flush(); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
