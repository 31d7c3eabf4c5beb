package prepare

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// GuardCounter is how much the port guard kept from crossing in a direction for
// a reason.
type GuardCounter struct {
	Direction Direction `json:"direction"`
	Reason    Reason    `json:"reason"`
	Packets   uint64    `json:"packets"`
	Bytes     uint64    `json:"bytes"`
}

// GuardReader reads the counters of port guards in the network namespace in
// which it was opened, from wherever it is called. It may be used by several
// goroutines at once. Close it.
type GuardReader struct{ conn *netlink.Conn }

// OpenGuardReader opens a reader in the network namespace of the calling thread.
func OpenGuardReader() (*GuardReader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	return &GuardReader{conn}, nil
}

// Close closes the reader's socket.
func (r *GuardReader) Close() error { return r.conn.Close() }

// GuardCounters reads the counters of the plan's port guard in the network
// namespace of the calling thread, as [GuardReader.Counters] does.
func (p Plan) GuardCounters() ([]GuardCounter, error) {
	if !p.Guard {
		return nil, nil
	}
	r, err := OpenGuardReader()
	if err != nil {
		return nil, err
	}
	counters, err := r.Counters(p)
	return counters, errors.Join(err, r.Close())
}

// Counters returns the counters of the plan's port guard, each direction and
// reason once, those that are zero too; none if the plan has no guard. The
// kernel wants NET_ADMIN of whoever opened the reader and of whoever reads;
// without, the error wraps [unix.EPERM].
func (r *GuardReader) Counters(p Plan) ([]GuardCounter, error) {
	if !p.Guard {
		return nil, nil
	}
	g := p.guard()
	counted, err := r.rules(g)
	if err != nil {
		return nil, fmt.Errorf("read guard of %s: %w", p.Interface.Name, err)
	}
	var counters []GuardCounter
	at := map[dropKey]int{}
	for _, c := range g.chains {
		there := counted[c.name]
		if len(there) != len(c.rules) {
			return nil, fmt.Errorf("read guard of %s: chain %s has %d rules, not the %d planned: run prepare again",
				p.Interface.Name, c.name, len(there), len(c.rules))
		}
		for i, rule := range c.rules {
			if rule.drops == nil {
				continue
			}
			n, ok := at[*rule.drops]
			if !ok {
				n = len(counters)
				at[*rule.drops] = n
				counters = append(counters, GuardCounter{Direction: rule.drops.direction, Reason: rule.drops.reason})
			}
			counters[n].Packets += there[i].packets
			counters[n].Bytes += there[i].bytes
		}
	}
	return counters, nil
}

// counts is what a rule's counter says; nothing if it has none.
type counts struct{ packets, bytes uint64 }

// rules reads the counters of a table's rules, by chain, in the rules' order.
func (r *GuardReader) rules(t table) (map[string][]counts, error) {
	request := netlink.NewAttributeEncoder()
	request.String(unix.NFTA_RULE_TABLE, t.name)
	attrs, err := request.Encode()
	if err != nil {
		return nil, err
	}
	// struct nfgenmsg, linux/netfilter/nfnetlink.h
	head := []byte{byte(families[t.family]), unix.NFNETLINK_V0, 0, 0}
	replies, err := r.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append(head, attrs...),
	})
	if err != nil {
		return nil, explain(err)
	}
	chains := map[string][]counts{}
	for _, reply := range replies {
		if len(reply.Data) < len(head) {
			return nil, errors.New("the kernel's answer is too short")
		}
		chain, n, err := parseCounts(reply.Data[len(head):])
		if err != nil {
			return nil, err
		}
		chains[chain] = append(chains[chain], n)
	}
	return chains, nil
}

// parseCounts reads a rule's attributes (enum nft_rule_attributes,
// linux/netfilter/nf_tables.h).
func parseCounts(b []byte) (chain string, n counts, err error) {
	rule, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return "", n, err
	}
	for rule.Next() {
		switch rule.Type() {
		case unix.NFTA_RULE_CHAIN:
			chain = rule.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			rule.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					list.Nested(n.parse)
				}
				return nil
			})
		}
	}
	return chain, n, rule.Err()
}

// parse reads an expression, if it is a counter.
func (n *counts) parse(e *netlink.AttributeDecoder) error {
	isCounter := false
	for e.Next() {
		switch e.Type() {
		case unix.NFTA_EXPR_NAME:
			isCounter = e.String() == "counter"
		case unix.NFTA_EXPR_DATA:
			if isCounter {
				e.Nested(n.parseCounter)
			}
		}
	}
	return nil
}

func (n *counts) parseCounter(c *netlink.AttributeDecoder) error {
	c.ByteOrder = binary.BigEndian
	for c.Next() {
		switch c.Type() {
		case unix.NFTA_COUNTER_PACKETS:
			n.packets = c.Uint64()
		case unix.NFTA_COUNTER_BYTES:
			n.bytes = c.Uint64()
		}
	}
	return nil
}
