package nft

import (
	"errors"
	"fmt"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// LackingError is that the kernel does not know something that a table is made of.
type LackingError struct {
	What    string // what it is, and the kernel's option for it
	Purpose string // what the table is for
	Without string // the way out without it
	Err     error
}

func (e *LackingError) Error() string {
	return fmt.Sprintf("%v: the node's kernel has no %s, which %s is made of", e.Err, e.What, e.Purpose)
}

// Unwrap returns what the kernel said.
func (e *LackingError) Unwrap() error { return e.Err }

// options are the kernel's for expressions that not each kernel with nftables has.
var options = map[string]string{
	"fwd": "CONFIG_NFT_FWD_NETDEV", "dup": "CONFIG_NFT_DUP_NETDEV", "counter": "CONFIG_NFT_COUNTER",
}

// explain finds out what the kernel lacks, if its error may mean that: it says the same of
// a link that is missing.
func explain(err error, changes []Change) error {
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	for _, c := range changes {
		if what := c.lacking(); what != "" {
			return &LackingError{what, c.Purpose, c.Without, err}
		}
	}
	return err
}

// lacking asks the kernel for each kind of base chain and of expression in the table,
// and makes none.
func (t Table) lacking() string {
	asked := map[string]bool{}
	for _, c := range t.Chains {
		device := ""
		if c.Device != "" {
			device = "lo"
		}
		if c.Hook != "" && t.unknown(Chain{Name: c.Name, Hook: c.Hook, Device: device, Early: c.Early}) {
			return fmt.Sprintf("hook %s in nftables of the family %s (%s)", c.Hook, t.Family.Name, t.Family.Config)
		}
		for _, r := range c.Rules {
			for _, e := range r.exprs(t.Family, func(string) int { return 1 }) {
				name := nameOf(t.Family, e)
				if asked[name] {
					continue
				}
				asked[name] = true
				if t.unknown(Chain{Name: c.Name, Rules: []Rule{{{exprs: []expr.Any{e}}}}}) {
					return fmt.Sprintf("expression %s in nftables%s", name, bracketed(options[name]))
				}
			}
		}
	}
	return ""
}

func bracketed(option string) string {
	if option == "" {
		return ""
	}
	return " (" + option + ")"
}

// unknown tells whether the kernel does not know something in a chain, where all that it
// may name is there.
func (t Table) unknown(asked Chain) bool {
	const table = Prefix + "asked"
	b := newBatch(t.Family.Number)
	b.addTable(table)
	for i, s := range t.Sets {
		b.addSet(table, s, i+1)
	}
	for _, c := range t.Chains {
		if c = (Chain{Name: c.Name}); c.Name == asked.Name {
			c = asked
		}
		b.addChain(table, c, t.Family)
	}
	for _, r := range asked.Rules {
		b.addRule(table, asked.Name, r, t.Family, func(string) int { return 1 })
	}
	return errors.Is(b.try(), unix.ENOENT)
}

// nameOf is an expression's name.
func nameOf(f Family, e expr.Any) string {
	var a attributes
	if a.expression(f, e) != nil {
		return ""
	}
	return nl.Attributes(a).Text(unix.NFTA_EXPR_NAME)
}
