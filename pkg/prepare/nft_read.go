package prepare

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// tableNow is a table as the kernel has it.
type tableNow struct {
	flags  uint32
	chains map[string]chainNow
}

// chainNow is a chain as the kernel has it, with its rules.
type chainNow struct {
	chain nftables.Chain
	rules []ruleNow
}

// ruleNow is a rule as the kernel has it.
type ruleNow struct {
	handle  uint64
	comment string
	lets    [][]byte // see letsOf
}

// digest is what the kernel keeps as a rule's comment: nobody needs to tell from
// the kernel's own words, which it may put otherwise, whether the rule is the
// planned one.
func (r rule) digest(f family, index int) string {
	sum := sha256.New()
	sum.Write([]byte(r.text))
	for _, e := range r.resolve(index) {
		b, err := expr.Marshal(byte(families[f]), e)
		if err != nil { // the kernel is never asked for such a rule
			return err.Error()
		}
		sum.Write(b)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// differs says in words how the table is not the planned one; "": it is. index
// tells the index of a link, 0 if there is none.
func (n tableNow) differs(t table, index func(name string) int) string {
	if n.flags != 0 {
		return "it has flags, such as dormant"
	}
	for _, c := range t.chains {
		now, there := n.chains[c.name]
		if !there {
			return "chain " + c.name + " is missing"
		}
		if why := now.differs(t.family, c, index); why != "" {
			return "chain " + c.name + " " + why
		}
	}
	if len(n.chains) != len(t.chains) {
		return fmt.Sprintf("it has %d chains, not the %d planned", len(n.chains), len(t.chains))
	}
	return ""
}

// differs says what the chain does otherwise than planned; "": nothing.
func (n chainNow) differs(f family, c chain, index func(name string) int) string {
	hook, policy, priority := n.chain.Hooknum, n.chain.Policy, n.chain.Priority
	switch {
	case c.hook == "" && hook != nil:
		return "has a hook"
	case c.hook == "":
	case hook == nil || *hook != *hooks[c.hook] || n.chain.Type != nftables.ChainTypeFilter:
		return "is not at the hook " + c.hook
	case policy == nil || *policy != nftables.ChainPolicyAccept:
		return "has another policy"
	case priority == nil || *priority != filterPriorities[f]:
		return "has another priority"
	}
	if len(n.rules) != len(c.rules) {
		return fmt.Sprintf("has %d rules, not the %d planned", len(n.rules), len(c.rules))
	}
	for i, r := range c.rules {
		if n.rules[i].comment != r.digest(f, index(r.sendTo)) {
			return fmt.Sprintf("has another rule %d than the planned one, %s", i+1, r.text)
		}
	}
	return ""
}

// CheckTables tells how the plan's nftables tables, the port guard and the answers
// for neighbours, are not as they were made, rule by rule: [TableError]; nil: they
// are. The kernel wants NET_ADMIN for that; without, the error wraps [unix.EPERM].
func (p Plan) CheckTables() error {
	now, err := readTables()
	if err != nil {
		return err
	}
	conn, err := nl.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	var s state
	if s.links, err = conn.Links(); err != nil {
		return err
	}
	var errs []error
	for _, e := range p.tableErrors(now, s.index) {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

func (p Plan) tableErrors(now map[tableID]tableNow, index func(name string) int) []*TableError {
	var errs []*TableError
	for _, t := range []table{p.guard(), p.answers()} {
		if t.family == bridgeFamily && !p.Guard || len(t.chains) == 0 {
			continue
		}
		why := "is missing"
		if there, ok := now[t.id()]; ok {
			why = there.differs(t, index)
		}
		if why != "" {
			errs = append(errs, &TableError{Interface: p.Interface.Name, Table: string(t.family) + " " + t.name, Why: why})
		}
	}
	return errs
}

// TableError is an nftables table of a prepared interface that somebody has
// changed. The next prepare makes it whole.
type TableError struct {
	Interface string // the pod interface's name
	Table     string // family and name
	Why       string
}

func (e *TableError) Error() string {
	return fmt.Sprintf("nftables table %s of %s: %s: run prepare again", e.Table, e.Interface, e.Why)
}

// readTables returns our tables that are there.
func readTables() (map[tableID]tableNow, error) {
	all := map[tableID]tableNow{}
	conn, err := nftables.New(nftables.AsLasting())
	if errors.Is(err, unix.EPROTONOSUPPORT) { // no nfnetlink: as in the loop below
		return all, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.CloseLasting() //nolint:errcheck // nothing was changed by it
	for _, f := range []family{bridgeFamily, netdevFamily} {
		err := readFamily(conn, f, all)
		if isUnsupported(err, families[f]) {
			continue // a kernel without nftables has no tables; making one will say so
		}
		if err != nil {
			return nil, fmt.Errorf("read nftables: %w", explain(err))
		}
	}
	return all, nil
}

// isUnsupported reports whether a kernel without nftables has said err. What it
// says to a question of that kind (nfnetlink_rcv_msg, net/netfilter/nfnetlink.c)
// has other causes too, so it is asked again.
func isUnsupported(err error, f nftables.TableFamily) bool {
	if errors.Is(err, unix.EINVAL) {
		err = familySupported(f)
	}
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EAFNOSUPPORT)
}

// readFamily adds our tables of a family to all.
func readFamily(conn *nftables.Conn, f family, all map[tableID]tableNow) error {
	tables, err := conn.ListTablesOfFamily(families[f])
	if err != nil {
		return err
	}
	for _, t := range tables {
		if strings.HasPrefix(t.Name, tablePrefix) {
			all[tableID{f, t.Name}] = tableNow{flags: t.Flags, chains: map[string]chainNow{}}
		}
	}
	if len(all) == 0 {
		return nil
	}
	chains, err := conn.ListChainsOfTableFamily(families[f])
	if err != nil {
		return err
	}
	for _, c := range chains {
		t, ours := all[tableID{f, c.Table.Name}]
		if !ours {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return fmt.Errorf("chain %s of %s: %w", c.Name, c.Table.Name, err)
		}
		now := chainNow{chain: *c}
		for _, r := range rules {
			comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			now.rules = append(now.rules, ruleNow{r.Handle, comment, letsOf(r.Exprs)})
		}
		t.chains[c.Name] = now
	}
	return nil
}
