package nft

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batch is a transaction: the kernel does all of it or nothing.
type batch struct {
	family   byte // of what is added next
	messages []netlink.Message
	err      error
}

// attrs encodes attributes of a request.
type attrs = netlink.AttributeEncoder

// add adds a request. Its attributes are the names of the table and of what is in it,
// and what encode adds.
func (b *batch) add(kind int, flags netlink.HeaderFlags, names []string, encode func(*attrs) error) {
	data, err := request(b.family, names, encode)
	b.err = errors.Join(b.err, err)
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags}, Data: data,
	})
}

// request is what a message has behind its header: the name of the table is the first
// attribute of each kind, that of a chain or of a set in it mostly the second one.
func request(family byte, names []string, encode func(*attrs) error) ([]byte, error) {
	a := encoder()
	for i, name := range names {
		a.String(uint16(unix.NFTA_TABLE_NAME+i), name)
	}
	if encode != nil {
		if err := encode(a); err != nil {
			return nil, err
		}
	}
	b, err := a.Encode()
	return append(header(family, 0), b...), err
}

func encoder() *attrs {
	a := netlink.NewAttributeEncoder()
	a.ByteOrder = binary.BigEndian
	return a
}

func (b *batch) addTable(name string) {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create, []string{name}, func(a *attrs) error {
		a.Uint32(unix.NFTA_TABLE_FLAGS, 0)
		return nil
	})
}

func (b *batch) addChain(table string, c Chain, f Family) {
	priority, _ := c.priority(f)
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, []string{table}, func(a *attrs) error {
		a.String(unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook == "" {
			return nil
		}
		a.Nested(unix.NFTA_CHAIN_HOOK, func(a *attrs) error {
			a.Uint32(unix.NFTA_HOOK_HOOKNUM, uint32(*hooks[c.Hook]))
			a.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(priority))
			if c.Device != "" {
				a.String(unix.NFTA_HOOK_DEV, c.Device)
			}
			return nil
		})
		a.Uint32(unix.NFTA_CHAIN_POLICY, uint32(nftables.ChainPolicyAccept))
		a.String(unix.NFTA_CHAIN_TYPE, string(nftables.ChainTypeFilter))
		return nil
	})
}

func (b *batch) addRule(table, chain string, r Rule, f Family, index func(string) int) {
	exprs := r.exprs(f, index)
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, []string{table, chain}, func(a *attrs) error {
		a.Nested(unix.NFTA_RULE_EXPRESSIONS, func(a *attrs) error {
			for _, e := range exprs {
				encoded, err := marshal(f, e)
				if err != nil {
					return err
				}
				a.Bytes(netlink.Nested|unix.NFTA_LIST_ELEM, encoded)
			}
			return nil
		})
		a.Bytes(unix.NFTA_RULE_USERDATA, userdata.AppendString(nil, userdata.TypeComment, r.digest(f, exprs)))
		return nil
	})
}

// commit has the kernel do the batch, in the network namespace of the calling thread.
func (b *batch) commit() error {
	return b.send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES),
	})
}

// send sends the batch and returns the first error of it. Without an end the kernel
// takes back all that it has done.
func (b *batch) send(end ...netlink.Message) error {
	if b.err != nil {
		return b.err
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open nftables socket: %w", err)
	}
	defer conn.Close()
	// All requests are sent at once, and each that fails has an answer before any of
	// these is read.
	if err := errors.Join(conn.SetWriteBuffer(batchBuffer), conn.SetReadBuffer(batchBuffer)); err != nil {
		return fmt.Errorf("set up nftables socket: %w", err)
	}
	b.messages[len(b.messages)-1].Header.Flags |= netlink.Acknowledge
	messages := append([]netlink.Message{{
		Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: header(0, unix.NFNL_SUBSYS_NFTABLES),
	}}, b.messages...)
	if _, err := conn.SendMessages(append(messages, end...)); err != nil {
		return fmt.Errorf("send to nftables: %w", err)
	}
	_, err = conn.Receive()
	return err
}

// batchBuffer is enough for some thousand requests. A user namespace's root gets twice
// the usual (net.core.rmem_max, net.core.wmem_max).
const batchBuffer = 4 << 20
