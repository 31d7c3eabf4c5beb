package prepare

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// priorityFilter is nft(8)'s "priority filter" in family bridge
// (NF_BR_PRI_FILTER_BRIDGED, linux/netfilter_bridge.h).
const priorityFilter = -200

// addGuard makes the guard's table.
type addGuard struct {
	guard guard
	// replace is for a table that is there already. Elsewhere it would cost
	// the kernel some milliseconds to wait for readers of nothing.
	replace bool
}

func (o addGuard) String() string {
	if o.replace {
		return "nft delete table bridge " + o.guard.table + "\n" + o.guard.String()
	}
	return o.guard.String()
}

func (o addGuard) inverse() op { return delGuard{o.guard} }

// delGuard deletes the guard's table.
type delGuard struct{ guard guard }

func (o delGuard) String() string { return "nft delete table bridge " + o.guard.table }
func (o delGuard) inverse() op    { return addGuard{guard: o.guard} }

// do makes the table in one transaction: no frame passes a half-made guard.
func (o addGuard) do(*kernel) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: o.guard.table}
	if o.replace {
		conn.DelTable(table)
	}
	conn.AddTable(table)
	comment := userdata.AppendString(nil, userdata.TypeComment, o.guard.digest())
	for _, c := range o.guard.chains {
		made := &nftables.Chain{Name: c.name, Table: table}
		if c.hook != nil {
			policy := nftables.ChainPolicyAccept
			made.Type, made.Hooknum, made.Policy = nftables.ChainTypeFilter, c.hook, &policy
			made.Priority = nftables.ChainPriorityRef(priorityFilter)
		}
		conn.AddChain(made)
		for _, r := range c.rules {
			conn.AddRule(&nftables.Rule{Table: table, Chain: made, Exprs: r.exprs, UserData: comment})
			comment = nil // on the first rule only
		}
	}
	return conn.Flush()
}

func (o delGuard) do(*kernel) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: o.guard.table})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// readTables returns the digests of the guards that are there, by table name.
func readTables() (map[string]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyBridge)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EINVAL) {
		return nil, nil // a kernel without nftables has no guards; making one will say so
	}
	if err != nil {
		return nil, fmt.Errorf("read nftables: %w", explain(err))
	}
	digests := map[string]string{}
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, "virt-launcher-net-") {
			continue
		}
		if digests[t.Name], err = readDigest(conn, t); err != nil {
			return nil, err
		}
	}
	return digests, nil
}

// readDigest finds the comment on the first rule of the first chain that has
// any, or "" if there is none.
func readDigest(conn *nftables.Conn, t *nftables.Table) (string, error) {
	for _, name := range []string{"from_guest", "forward"} {
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
