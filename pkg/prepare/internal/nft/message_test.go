package nft

import (
	"testing"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Whatever a message says, it is followed or not, and what is there can be compared.
func FuzzMessage(f *testing.F) {
	table := redirecting(flows4, flows6, ids4, ids6, ports)
	made := newBatch(table.Family.Number)
	made.addTable(table.Name)
	for i, s := range table.Sets {
		made.addSet(table.Name, s, i+1)
	}
	for _, c := range table.Chains {
		made.addChain(table.Name, c, table.Family)
		for _, r := range c.Rules {
			made.addRule(table.Name, c.Name, r, table.Family, none)
		}
	}
	messages, err := nl.Split(made.attributes)
	if err != nil {
		f.Fatal(err)
	}
	messages = messages[1:] // without the beginning of the batch
	for _, m := range messages {
		for _, later := range []uint16{0, 2} { // NFT_MSG_DEL… is two behind NFT_MSG_NEW…
			f.Add(uint8(m.Type+later), m.Flags, m.Data)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, flags uint16, data []byte) {
		all := tables{}
		for _, m := range messages {
			parsed, ok := parse(m)
			if !ok || !all.apply(parsed) {
				t.Fatalf("a message of the kernel's is not followed: %+v", m)
			}
		}
		// The kernel's messages have each rule's number, these have none: they are one.
		before := all[table.ID()].clone()
		m, ok := parse(nl.Message{Type: kindOf(int(kind)), Flags: flags, Data: data})
		if !all.apply(m) && ok && table.Differs(before, true, none).Error() != table.Differs(all[table.ID()], true, none).Error() {
			t.Errorf("a message that changed nothing made another table: %+v", m)
		}
		now, there := all[table.ID()]
		_ = table.Differs(now, there, none)
		_ = Change{Table: table, Now: &now}.Text()
	})
}
