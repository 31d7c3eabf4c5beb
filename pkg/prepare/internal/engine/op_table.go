package engine

import (
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// TableOps make the tables, or make them anew where they are not the planned ones.
// They stay, whatever comes of the changes after them, where a VM may be on the tap.
func TableOps(s *State, tap string, tables ...nft.Table) []Op {
	var ops []Op
	for _, t := range tables {
		now, there := s.Tables[t.ID()]
		switch {
		case !there:
			ops = append(ops, AddTable{Table: t, stays: s.Link(tap) != nil})
		case t.Differs(now, true, s.Index) != nil:
			ops = append(ops, AddTable{Table: t, replaces: &now, stays: true})
		}
	}
	return ops
}

// DropTableOps delete the tables of a pod interface that are there: those of its
// wiring, or that a wiring with other options had.
func DropTableOps(s *State, tables ...nft.Table) []Op {
	var ops []Op
	for _, t := range tables {
		if _, there := s.Tables[t.ID()]; there {
			ops = append(ops, delTable{t})
		}
	}
	return ops
}

// AddTable makes an nftables table, in one transaction: no frame passes a half-made
// one.
type AddTable struct {
	nft.Table
	// replaces is a table that is there already; nil: there is none, and the kernel
	// need not wait some milliseconds for readers of nothing.
	replaces *nft.Present
	// stays: it is not undone. A table of ours that is replaced was not whole,
	// so the old one is not worth coming back to, and a VM that may be on the
	// tap must never be without.
	stays bool
}

func (o AddTable) String() string { return o.Add(o.replaces) }

// Inverse deletes it, unless it stays.
func (o AddTable) Inverse() Op {
	if o.stays {
		return nil
	}
	return delTable{o.Table}
}

// Do makes it.
func (o AddTable) Do(*Kernel) error { return o.advise(o.Write(o.replaces)) }

// Supported asks the kernel for tables of the family, and for the egress hook if a chain
// is at one.
func (o AddTable) Supported(*Kernel) error {
	err := nft.Supported(o.Family)
	if err == nil && o.hasEgress() {
		err = nft.EgressSupported()
	}
	return o.advise(err)
}

func (o AddTable) hasEgress() bool {
	return slices.ContainsFunc(o.Chains, func(c nft.Chain) bool { return c.Hook == "egress" })
}

// advise adds the way out where the kernel lacks what the table takes.
func (o AddTable) advise(err error) error {
	if !nft.Unsupported(err) {
		return err
	}
	lacks := fmt.Sprintf("nftables of the family %s (%s)", o.Family.Name, o.Family.Config)
	wayOut := "load the module nf_tables on the node"
	if o.hasEgress() && nft.Supported(o.Family) == nil {
		lacks, wayOut = "egress hook in nftables (CONFIG_NETFILTER_EGRESS)", "use a node with Linux 5.16 or later"
	}
	return Advised{fmt.Errorf("%w: the node's kernel has no %s, which %s is made of: %s%s", err, lacks, o.Purpose, wayOut, o.Without)}
}

// delTable deletes a table.
type delTable struct{ nft.Table }

func (o delTable) String() string { return o.DeleteText() }

// Inverse makes it again.
func (o delTable) Inverse() Op { return AddTable{Table: o.Table} }

// Do deletes it. One that is gone is deleted.
func (o delTable) Do(*Kernel) error { return o.Delete() }
