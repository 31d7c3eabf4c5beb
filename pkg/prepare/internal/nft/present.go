package nft

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Present is a table as the kernel has it.
type Present struct {
	flags  uint32
	chains map[string]chain
	sets   map[string]set
}

type chain struct {
	hook  hook
	rules []rule
}

// hook is where a base chain is, and what becomes of a frame that no rule judges;
// zero: the chain is only jumped to.
type hook struct {
	kind     string
	number   uint32
	priority int32
	device   string
	policy   uint32
}

type rule struct {
	handle         uint64
	comment        string
	values         [][]byte // that frames have to have somewhere
	accepts        bool
	leads          string // the chain that judges instead; empty: none
	packets, bytes uint64
}

// Made is the table as the kernel has it once it is made. index tells the index of
// a link.
func (t Table) Made(index func(link string) int) Present {
	made := Present{chains: map[string]chain{}, sets: map[string]set{}}
	for _, s := range t.Sets {
		made.sets[s.Name] = s.present()
	}
	var encoded attributes
	for _, c := range t.Chains {
		var is chain
		if c.Hook != "" {
			priority, _ := c.priority(t.Family)
			is.hook = hook{
				kind: string(nftables.ChainTypeFilter), number: uint32(*hooks[c.Hook]), priority: int32(priority),
				device: c.Device, policy: uint32(nftables.ChainPolicyAccept),
			}
		}
		for _, r := range c.Rules {
			encoded = encoded[:0]
			digest, _ := encoded.rule(r, t.Family, index) // one that can't be encoded was never made
			is.rules = append(is.rules, rule{comment: digest})
		}
		made.chains[c.Name] = is
	}
	return made
}

// Differs says how the table that the kernel has, if there is one, is not as it was
// made; nil: it is. index tells the index of a link, 0 if there is none.
func (t Table) Differs(now Present, there bool, index func(link string) int) error {
	made := t.Made(index)
	switch {
	case !there:
		return errors.New("is missing")
	case now.flags != 0:
		return errors.New("it has flags, such as dormant")
	}
	for _, c := range t.Chains {
		is, there := now.chains[c.Name]
		want := made.chains[c.Name]
		switch {
		case !there:
			return fmt.Errorf("chain %s is missing", c.Name)
		case is.hook != want.hook:
			return fmt.Errorf("chain %s is at another hook than planned, or has another priority or policy", c.Name)
		case len(is.rules) != len(want.rules):
			return fmt.Errorf("chain %s has %d rules, not the %d planned", c.Name, len(is.rules), len(want.rules))
		}
		for i, r := range want.rules {
			if is.rules[i].comment != r.comment {
				return fmt.Errorf("chain %s has another rule %d than the planned one, %s", c.Name, i+1, c.Rules[i].text(t.Family))
			}
		}
	}
	if len(now.chains) != len(t.Chains) {
		return fmt.Errorf("it has %d chains, not the %d planned", len(now.chains), len(t.Chains))
	}
	for _, s := range t.Sets {
		is, there := now.sets[s.Name]
		if !there {
			return fmt.Errorf("set %s is missing", s.Name)
		}
		if how := s.differs(is); how != "" {
			return fmt.Errorf("set %s %s", s.Name, how)
		}
	}
	if len(now.sets) != len(t.Sets) {
		return fmt.Errorf("it has %d sets, not the %d planned", len(now.sets), len(t.Sets))
	}
	return nil
}

// otherSets are the names of the sets but for those of some names.
func (p Present) otherSets(names []string) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.sets)), func(s string) bool { return slices.Contains(names, s) })
}

func (p Present) chainNames() []string { return slices.Sorted(maps.Keys(p.chains)) }

// Accepted returns the addresses with which a chain lets frames pass: by accepting them,
// or by leaving them to a chain whose name does not begin with its own.
func (p Present) Accepted(chain string) (addresses []netip.Addr) {
	for _, r := range p.chains[chain].rules {
		passes := r.accepts || r.leads != "" && !strings.HasPrefix(r.leads, chain)
		for _, value := range r.values {
			if a, ok := netip.AddrFromSlice(value); ok && passes && !a.IsUnspecified() {
				addresses = append(addresses, a)
			}
		}
	}
	return addresses
}

func (p Present) clone() Present {
	p.chains = maps.Clone(p.chains)
	for name, c := range p.chains {
		c.rules = slices.Clone(c.rules)
		p.chains[name] = c
	}
	p.sets = maps.Clone(p.sets)
	for name, s := range p.sets {
		s.elements = maps.Clone(s.elements)
		p.sets[name] = s
	}
	return p
}

// tables are what the kernel has, as its messages tell.
type tables map[ID]Present

// apply follows a message, and tells whether it is about one of our tables, but for
// what frames put into a set. One that can't be read leaves the table unlike the planned
// one.
func (all tables) apply(m message) bool {
	id := ID{nftables.TableFamily(m.family), m.table}
	table, there := all[id]
	if !strings.HasPrefix(m.table, Prefix) {
		return false
	}
	switch m.kind {
	case unix.NFT_MSG_NEWTABLE:
		if !there {
			table = Present{chains: map[string]chain{}, sets: map[string]set{}}
		}
		table.flags = m.flags
		all[id] = table
	case unix.NFT_MSG_DELTABLE:
		delete(all, id)
	default:
		return there && table.apply(m)
	}
	return true
}

// apply follows a message about what is in the table.
func (p Present) apply(m message) bool {
	c, s := p.chains[m.chain], p.sets[m.set]
	switch m.kind {
	case unix.NFT_MSG_NEWCHAIN:
		c.hook = m.hook
		p.chains[m.chain] = c
	case unix.NFT_MSG_DELCHAIN:
		delete(p.chains, m.chain)
	case unix.NFT_MSG_NEWRULE:
		c.put(m.rule, m.after, m.last)
		p.chains[m.chain] = c
	case unix.NFT_MSG_DELRULE:
		c.rules = slices.DeleteFunc(c.rules, func(r rule) bool { return r.handle == m.rule.handle })
		p.chains[m.chain] = c
	case unix.NFT_MSG_NEWSET:
		p.sets[m.set] = set{m.definition, map[element]bool{}}
	case unix.NFT_MSG_DELSET:
		delete(p.sets, m.set)
	case unix.NFT_MSG_NEWSETELEM, unix.NFT_MSG_DELSETELEM:
		if s.elements == nil || s.dynamic() {
			return false
		}
		for _, e := range m.elements {
			delete(s.elements, e)
			if m.kind == unix.NFT_MSG_NEWSETELEM {
				s.elements[e] = true
			}
		}
	}
	return true
}

// put puts a rule behind another. The kernel names none for the first rule and for
// the last, which is marked as appended (nf_tables_rule_notify,
// net/netfilter/nf_tables_api.c).
func (c *chain) put(r rule, after uint64, last bool) {
	at := func(handle uint64) int {
		return slices.IndexFunc(c.rules, func(r rule) bool { return r.handle == handle })
	}
	switch i := at(r.handle); {
	case i >= 0: // it was read already
		c.rules[i] = r
	case after == 0 && last:
		c.rules = append(c.rules, r)
	default:
		c.rules = slices.Insert(c.rules, at(after)+1, r)
	}
}
