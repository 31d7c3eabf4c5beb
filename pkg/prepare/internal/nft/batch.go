package nft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// batch is a transaction: the kernel does all of it or nothing.
type batch struct {
	attributes      // messages, the last of them being the one that is added to
	family     byte // of what is added next
	last       int  // where it begins
	err        error
}

// newBatch begins a batch. What is added first is of that family.
func newBatch(family nftables.TableFamily) *batch {
	b := &batch{family: byte(family), attributes: make(attributes, 0, usualBatch)}
	b.message(unix.NFNL_MSG_BATCH_BEGIN, 0, header(0, unix.NFNL_SUBSYS_NFTABLES))
	return b
}

// usualBatch is room for a usual table: memory that is not written to is not taken.
const usualBatch = 128 << 10

// message adds a message.
func (b *batch) message(kind, flags uint16, data []byte) {
	b.last = len(b.attributes)
	b.attributes = nl.AppendMessage(b.attributes, kind, unix.NLM_F_REQUEST|flags, 0, data)
}

// add adds a request. Its attributes are the names of the table and of what is in it,
// and what encode adds.
func (b *batch) add(kind int, flags uint16, names []string, encode func()) {
	b.message(kindOf(kind), flags, header(b.family, 0))
	b.names(names)
	if encode != nil {
		encode()
	}
	binary.NativeEndian.PutUint32(b.attributes[b.last:], uint32(len(b.attributes)-b.last))
}

// kindOf is the type of a message to nftables.
func kindOf(kind int) uint16 { return uint16(unix.NFNL_SUBSYS_NFTABLES<<8 | kind) }

// names adds the names that a message begins with: that of the table is the first
// attribute of each kind, that of a chain or of a set in it mostly the second one.
func (a *attributes) names(names []string) {
	for i, name := range names {
		a.text(unix.NFTA_TABLE_NAME+i, name)
	}
}

func (b *batch) addTable(name string) {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, []string{name}, func() { b.uint32(unix.NFTA_TABLE_FLAGS, 0) })
}

func (b *batch) addChain(table string, c Chain, f Family) {
	priority, _ := c.priority(f)
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, []string{table}, func() {
		b.text(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook == "" {
			return
		}
		b.nested(unix.NFTA_CHAIN_HOOK, func() {
			b.uint32(unix.NFTA_HOOK_HOOKNUM, uint32(*hooks[c.Hook]))
			b.uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
			if c.Device != "" {
				b.text(unix.NFTA_HOOK_DEV, c.Device)
			}
		})
		b.uint32(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
		b.text(unix.NFTA_CHAIN_TYPE, string(nftables.ChainTypeFilter))
	})
}

func (b *batch) addRule(table, chain string, r Rule, f Family, index func(string) int) {
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, []string{table, chain}, func() {
		digest, err := b.rule(r, f, index)
		b.err = cmp.Or(b.err, err)
		b.bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, digest))
	})
}

// commit has the kernel do the batch, in the network namespace of the calling thread.
func (b *batch) commit() error {
	b.end()
	return b.send()
}

// end ends a batch that the kernel is to do.
func (b *batch) end() {
	b.acknowledge()
	b.message(unix.NFNL_MSG_BATCH_END, 0, header(0, unix.NFNL_SUBSYS_NFTABLES))
}

// try has the kernel look at the batch and take back all that it has done.
func (b *batch) try() error {
	b.acknowledge()
	return b.send()
}

// acknowledge has the kernel answer to the last request.
func (b *batch) acknowledge() {
	flags := b.attributes[b.last+6:]
	binary.NativeEndian.PutUint16(flags, binary.NativeEndian.Uint16(flags)|unix.NLM_F_ACK)
}

// send sends the batch by a socket of its own and returns the first error of it.
func (b *batch) send() error {
	s, err := open()
	if err != nil {
		return err
	}
	defer s.Close()
	return b.sendBy(s)
}

// sendBy sends the batch by a socket and returns the first error of it. A batch of more
// than one request may leave answers to the others.
func (b *batch) sendBy(s *nl.Socket) error {
	if b.err != nil {
		return b.err
	}
	if err := s.Send(b.attributes); err != nil {
		return fmt.Errorf("send to nftables: %w", err)
	}
	return s.Verdict()
}

// open opens a socket for batches. All requests of one are sent at once, and each that
// fails has an answer before any of these is read.
func open() (*nl.Socket, error) {
	s, err := nl.OpenSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	if err := s.SetBuffers(batchBuffer); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// batchBuffer is enough for some thousand requests. A user namespace's root gets twice
// the usual (net.core.rmem_max, net.core.wmem_max).
const batchBuffer = 4 << 20
