package nft

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Counter is how many frames, and bytes of them, rules counted as Label.
type Counter struct {
	Label          any // see [Judged]
	Packets, Bytes uint64
}

// Counts reports whether some rule counts frames as something.
func (t Table) Counts() bool {
	return slices.ContainsFunc(t.Chains, func(c Chain) bool {
		return slices.ContainsFunc(c.Rules, func(r Rule) bool { return r.label() != nil })
	})
}

// CounterReader reads counters in the network namespace in which it was opened, from
// wherever it is called. It may be used by several goroutines at once. Close it.
type CounterReader struct {
	mu     sync.Mutex
	socket *nl.Socket
}

// OpenCounterReader opens a reader in the network namespace of the calling thread.
func OpenCounterReader() (*CounterReader, error) {
	s, err := nl.OpenSocket(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	return &CounterReader{socket: s}, nil
}

// Close closes the reader's socket.
func (r *CounterReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.socket.Close()
}

// Counters returns the table's counters that have labels, each label once, those that
// are zero too. The kernel wants NET_ADMIN of whoever opened the reader and of
// whoever reads; without, the error wraps [unix.EPERM].
func (r *CounterReader) Counters(t Table) ([]Counter, error) {
	r.mu.Lock()
	messages, err := dump(r.socket, unix.NFT_MSG_GETRULE, t.Family.Number, t.Name)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	now := map[string][]rule{}
	for _, m := range messages {
		now[m.chain] = append(now[m.chain], m.rule)
	}
	var counters []Counter
	at := map[any]int{}
	for _, c := range t.Chains {
		there := now[c.Name]
		if len(there) != len(c.Rules) {
			return nil, fmt.Errorf("chain %s has %d rules, not the %d planned", c.Name, len(there), len(c.Rules))
		}
		for i, r := range c.Rules {
			label := r.label()
			if label == nil {
				continue
			}
			n, seen := at[label]
			if !seen {
				n = len(counters)
				at[label] = n
				counters = append(counters, Counter{Label: label})
			}
			counters[n].Packets += there[i].packets
			counters[n].Bytes += there[i].bytes
		}
	}
	return counters, nil
}
