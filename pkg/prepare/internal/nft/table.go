// Package nft has nftables tables as values: their text for nft(8), their bytes for
// the kernel, made of the same words, and how what the kernel has differs.
package nft

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
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

// IPv4Family and IPv6Family are those of packets of the stack itself.
var (
	IPv4Family = Family{Name: "ip", Number: nftables.TableFamilyIPv4, Config: "CONFIG_NF_TABLES_IPV4"}
	IPv6Family = Family{Name: "ip6", Number: nftables.TableFamilyIPv6, Config: "CONFIG_NF_TABLES_IPV6"}
)

// Prefix begins the name of each table of ours; a pod interface's follows.
const Prefix = "virt-launcher-net-"

// Table is an nftables table. Its chains are in the order in which they are made.
type Table struct {
	Family Family
	Name   string
	Sets   []Set
	Chains []Chain
	// Purpose is what is made of the table, and Without the way out without it, for
	// where the kernel can't have it.
	Purpose, Without string
}

// Chain is a chain; a base chain if it has a hook.
type Chain struct {
	Name   string
	Hook   string // prerouting, forward, input, output, postrouting, ingress, egress; empty: only jumped to
	Device string // of an ingress or egress hook
	// Early has a base chain see packets before whatever else may rewrite their
	// addresses: nft(8)'s priority raw (NF_IP_PRI_RAW, linux/netfilter_ipv4.h).
	Early bool
	// Late has it see them behind all of that.
	Late  bool
	Rules []Rule
}

// priority is a base chain's, for the kernel and for nft(8).
func (c Chain) priority(f Family) (nftables.ChainPriority, string) {
	switch {
	case c.Early:
		return *nftables.ChainPriorityRaw, "raw"
	case c.Late:
		return *nftables.ChainPriorityNATSource + 100, "srcnat + 100"
	}
	return f.Filter, "filter"
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

// Change makes a table.
type Change struct {
	Table
	// Now is one that is there, and is replaced, but for what is in sets with a timeout;
	// nil: there is none, and the kernel need not wait some milliseconds for readers of
	// nothing.
	Now *Present
}

// Text returns what makes the table, in nft(8)'s language.
func (c Change) Text() string {
	var b strings.Builder
	t, now := c.Table, c.Now
	kept := t.kept(now)
	switch {
	case len(kept) > 0:
		fmt.Fprintf(&b, "nft flush table %s\n", t)
		for _, s := range now.otherSets(kept) {
			fmt.Fprintf(&b, "nft delete set %s %s\n", t, s)
		}
		for _, c := range now.chainNames() {
			fmt.Fprintf(&b, "nft delete chain %s %s\n", t, c)
		}
	case now != nil:
		b.WriteString(t.DeleteText() + "\n")
	}
	fmt.Fprintf(&b, "nft add table %s", t)
	for _, s := range t.Sets {
		definition, elements := s.text()
		if len(s.Connected.From) > 0 {
			fmt.Fprintf(&b, "\n# and into it the connections that there are: ss -Htun state connected %s", s.Connected.text())
		}
		fmt.Fprintf(&b, "\nnft add set %s %s '{ %s }'", t, s.Name, definition)
		if elements != "" {
			fmt.Fprintf(&b, "\nnft add element %s %s '{ %s }'", t, s.Name, elements)
		}
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "\nnft add chain %s %s", t, c.Name)
		_, priority := c.priority(t.Family)
		switch {
		case c.Device != "":
			fmt.Fprintf(&b, " '{ type filter hook %s device %s priority %s; policy accept; }'", c.Hook, c.Device, priority)
		case c.Hook != "":
			fmt.Fprintf(&b, " '{ type filter hook %s priority %s; policy accept; }'", c.Hook, priority)
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\nnft add rule %s %s %s", t, c.Name, quoted(r.text(t.Family)))
		}
	}
	return b.String()
}

// kept are the names of the sets with a timeout that are there as planned: what is in
// them stays when the table is replaced. A table with flags is made anew: the kernel
// takes no hooks in the transaction that changes flags.
func (t Table) kept(now *Present) (names []string) {
	if now == nil || now.flags != 0 {
		return nil
	}
	for _, s := range t.Sets {
		is, there := now.sets[s.Name]
		if there && s.dynamic() && is.definition == s.present().definition {
			names = append(names, s.Name)
		}
	}
	return names
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

// Write makes tables in one transaction, so that no frame passes a half-made one, in the
// network namespace of the calling thread. See [Unsupported] for the error of a kernel
// that can't have one.
func Write(changes ...Change) error {
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	var failed error
	known := map[string]int{}
	index := func(link string) int {
		if _, ok := known[link]; !ok {
			i, err := conn.Index(link)
			known[link], failed = i, errors.Join(failed, err)
		}
		return known[link]
	}
	made := func(connections bool) error {
		b := newBatch(nftables.TableFamilyUnspecified)
		for _, c := range changes {
			b.write(c, index)
			if connections {
				failed = errors.Join(failed, b.addConnections(c))
			}
		}
		if failed != nil {
			return failed
		}
		return b.commit()
	}
	err = made(true)
	if errors.Is(err, unix.ENFILE) { // a set that is kept has no room for more
		return made(false)
	}
	return err
}

// write has the batch make a table.
func (b *batch) write(c Change, index func(link string) int) {
	t, now := c.Table, c.Now
	b.family = byte(t.Family.Number)
	b.addTable(t.Name)
	kept := t.kept(now)
	switch {
	case len(kept) > 0:
		b.clear(t, *now, kept)
	case now != nil: // made first, so that it is no error if it has just gone
		b.add(unix.NFT_MSG_DELTABLE, 0, []string{t.Name}, nil)
		b.addTable(t.Name)
	}
	for i, s := range t.Sets {
		b.addSet(t.Name, s, i+1)
	}
	for _, c := range t.Chains { // all before the first rule: rules name them
		b.addChain(t.Name, c, t.Family)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			b.addRule(t.Name, c.Name, r, t.Family, index)
		}
	}
}

// clear deletes what is in a table but for the sets that are kept: rules first, since
// they name what is deleted then.
func (b *batch) clear(t Table, now Present, kept []string) {
	b.add(unix.NFT_MSG_DELRULE, 0, []string{t.Name}, nil)
	for _, s := range now.otherSets(kept) {
		b.add(unix.NFT_MSG_DELSET, 0, []string{t.Name, s}, nil)
	}
	for _, c := range now.chainNames() {
		b.add(unix.NFT_MSG_DELCHAIN, 0, []string{t.Name}, func() { b.text(unix.NFTA_CHAIN_NAME, c) })
	}
}

var hooks = map[string]*nftables.ChainHook{
	"prerouting": nftables.ChainHookPrerouting, "forward": nftables.ChainHookForward, "input": nftables.ChainHookInput,
	"output": nftables.ChainHookOutput, "ingress": nftables.ChainHookIngress,
	"egress": nftables.ChainHookEgress, "postrouting": nftables.ChainHookPostrouting,
}

// Deleter deletes tables in the network namespace of the thread that opened it.
type Deleter struct{ socket *nl.Socket }

// OpenDeleter opens a Deleter. Close it last: the kernel then waits until what was
// deleted is freed (nft_rcv_nl_event, net/netfilter/nf_tables_api.c), some 13 ms of which
// nothing is left once other changes are done.
func OpenDeleter() (*Deleter, error) {
	s, err := open()
	if err != nil {
		return nil, err
	}
	return &Deleter{s}, nil
}

// Delete deletes a table. It is no error if there is none.
func (d *Deleter) Delete(t Table) error {
	b := newBatch(t.Family.Number)
	b.add(unix.NFT_MSG_DELTABLE, 0, []string{t.Name}, nil)
	b.end()
	if err := b.sendBy(d.socket); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// Close closes its socket.
func (d *Deleter) Close() error { return d.socket.Close() }
