package prepare

import (
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// GuardCounter is how much the port guard kept from crossing in a direction for
// a reason. Its fields:
//
//	Direction Direction
//	Reason    Reason
//	Packets   uint64
//	Bytes     uint64
type GuardCounter = guard.Counter

// Direction is which way a frame goes: from_guest, to_guest or from_pod.
type Direction = guard.Direction

// Reason is why the port guard keeps a frame from crossing. docs/operations.md lists
// the reasons, and tells which of them a guest that means no harm causes.
type Reason = guard.Reason

// GuardReader reads the counters of port guards in the network namespace in
// which it was opened, from wherever it is called. It may be used by several
// goroutines at once. Close it.
type GuardReader = nft.CounterReader

// OpenGuardReader opens a reader in the network namespace of the calling thread.
func OpenGuardReader() (*GuardReader, error) { return nft.OpenCounterReader() }

// HasTables reports whether nftables tables are there while the interface is prepared, so
// that frames may be counted that are kept from crossing.
func (p Plan) HasTables() bool { return len(p.wired().Tables()) > 0 }

// GuardCounters returns the counters of what the plan keeps from crossing, each
// direction and reason once, those that are zero too; none if it counts none. Without a
// reader (nil) it opens one. The kernel wants NET_ADMIN of whoever opened the reader
// and of whoever reads; without, the error wraps [unix.EPERM].
func (p Plan) GuardCounters(r *GuardReader) (out []GuardCounter, err error) {
	tables := slices.DeleteFunc(p.wired().Tables(), func(t nft.Table) bool { return !t.Counts() })
	if len(tables) == 0 {
		return nil, nil
	}
	if r == nil {
		if r, err = OpenGuardReader(); err != nil {
			return nil, err
		}
		defer r.Close()
	}
	for _, t := range tables {
		counters, err := guard.Counters(r, t)
		if err != nil {
			return nil, fmt.Errorf("read guard of %s: %w", p.Interface.Name, engine.Explain(err))
		}
		out = append(out, counters...)
	}
	return out, nil
}

// ChecksumFilter reports whether the tap has the filter that belongs to the port
// guard, and if not, why. It looks at the network namespace of the calling thread,
// and needs no privileges.
func (p Plan) ChecksumFilter() (on bool, why string, err error) {
	return engine.ChecksumFilter(p.NIC())
}
