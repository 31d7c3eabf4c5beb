package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// TableOps make the tables, or make them anew where they are not the planned ones.
// They stay, whatever comes of the changes after them, where a VM may be on the tap.
func TableOps(s *State, tap string, tables ...nft.Table) []Op {
	add := AddTables{stays: s.Link(tap) != nil}
	for _, t := range tables {
		now, there := s.Tables[t.ID()]
		switch {
		case !there:
			add.changes = append(add.changes, nft.Change{Table: t})
		case t.Differs(now, true, s.Index) != nil:
			add.changes, add.stays = append(add.changes, nft.Change{Table: t, Now: &now}), true
		}
	}
	if len(add.changes) == 0 {
		return nil
	}
	return []Op{add}
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

// AddTables makes nftables tables, in one transaction: no frame passes a half-made
// one, nor one without the others.
type AddTables struct {
	changes []nft.Change
	// stays: they are not undone. A table of ours that is replaced was not whole,
	// so the old one is not worth coming back to, and a VM that may be on the
	// tap must never be without.
	stays bool
}

func (o AddTables) String() string {
	var texts []string
	for _, c := range o.changes {
		texts = append(texts, c.Text())
	}
	return strings.Join(texts, "\n")
}

// Inverse deletes them, unless they stay.
func (o AddTables) Inverse() Op {
	if o.stays {
		return nil
	}
	var all Sequence
	for _, c := range slices.Backward(o.changes) {
		all = append(all, delTable{c.Table})
	}
	return all
}

// Do makes them.
func (o AddTables) Do(k *Kernel) error {
	err := nft.Write(o.changes...)
	if nft.Unsupported(err) {
		if lacking := o.Supported(k); lacking != nil {
			return lacking
		}
	}
	return err
}

// Supported asks the kernel for the tables' families, and for the egress hook if a chain
// is at one.
func (o AddTables) Supported(*Kernel) error {
	for _, c := range o.changes {
		if err := supported(c.Table); err != nil {
			return err
		}
	}
	return nil
}

// supported says what the kernel lacks of what a table takes, and the way out.
func supported(t nft.Table) error {
	lacks := fmt.Sprintf("nftables of the family %s (%s)", t.Family.Name, t.Family.Config)
	wayOut := "load the module nf_tables on the node"
	err := nft.Supported(t.Family)
	if err == nil && slices.ContainsFunc(t.Chains, func(c nft.Chain) bool { return c.Hook == "egress" }) {
		lacks, wayOut = "egress hook in nftables (CONFIG_NETFILTER_EGRESS)", "use a node with Linux 5.16 or later"
		err = nft.EgressSupported()
	}
	if !nft.Unsupported(err) {
		return err
	}
	return Advised{fmt.Errorf("%w: the node's kernel has no %s, which %s is made of: %s%s", err, lacks, t.Purpose, wayOut, t.Without)}
}

// delTable deletes a table.
type delTable struct{ nft.Table }

func (o delTable) String() string { return o.DeleteText() }

// Inverse makes it again.
func (o delTable) Inverse() Op { return AddTables{changes: []nft.Change{{Table: o.Table}}} }

// Do deletes it. One that is gone is deleted.
func (o delTable) Do(k *Kernel) error {
	if k.tables == nil {
		var err error
		if k.tables, err = nft.OpenDeleter(); err != nil {
			return err
		}
	}
	return k.tables.Delete(o.Table)
}
