package prepare

import (
	"errors"
	"fmt"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/engine"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Direction is which way a frame goes.
type Direction = guard.Direction

// The directions.
const (
	FromGuest = guard.FromVM
	ToGuest   = guard.ToVM
)

// Reason is why the port guard keeps a frame from crossing.
type Reason = guard.Reason

// The reasons. docs/operations.md tells which of them a guest that means no
// harm causes.
const (
	ForgedMAC           = guard.ForgedMAC
	ForgedIP            = guard.ForgedIP
	ForgedARP           = guard.ForgedARP
	ForgedND            = guard.ForgedND
	DHCPServer          = guard.DHCPServer
	DHCPClient          = guard.DHCPClient
	RouterAdvertisement = guard.RouterAdvertisement
	RouterSolicitation  = guard.RouterSolicitation
	Redirect            = guard.Redirect
	MulticastRouter     = guard.MulticastRouter
	Malformed           = guard.Malformed
	NoIPv4              = guard.NoIPv4
	NoIPv6              = guard.NoIPv6
	OwnMAC              = guard.OwnMAC
	OtherProtocol       = guard.OtherProtocol
)

// GuardCounter is how much the port guard kept from crossing in a direction for
// a reason.
type GuardCounter = guard.Counter

// GuardReader reads the counters of port guards in the network namespace in
// which it was opened, from wherever it is called. It may be used by several
// goroutines at once. Close it.
type GuardReader struct{ counters *nft.CounterReader }

// OpenGuardReader opens a reader in the network namespace of the calling thread.
func OpenGuardReader() (*GuardReader, error) {
	r, err := nft.OpenCounterReader()
	if err != nil {
		return nil, err
	}
	return &GuardReader{r}, nil
}

// Close closes the reader's socket.
func (r *GuardReader) Close() error { return r.counters.Close() }

// Counters returns the counters of the plan's port guard, each direction and
// reason once, those that are zero too; none if the plan has no guard. The
// kernel wants NET_ADMIN of whoever opened the reader and of whoever reads;
// without, the error wraps [unix.EPERM].
func (r *GuardReader) Counters(p Plan) ([]GuardCounter, error) {
	if !p.NIC().Guard {
		return nil, nil
	}
	var out []GuardCounter
	for _, t := range p.wiring.Tables() {
		counters, err := guard.Counters(r.counters, t)
		if err != nil {
			return nil, fmt.Errorf("read guard of %s: %w", p.Interface.Name, engine.Explain(err))
		}
		out = append(out, counters...)
	}
	return out, nil
}

// GuardCounters reads the counters of the plan's port guard in the network
// namespace of the calling thread, as [GuardReader.Counters] does.
func (p Plan) GuardCounters() ([]GuardCounter, error) {
	if !p.NIC().Guard {
		return nil, nil
	}
	r, err := OpenGuardReader()
	if err != nil {
		return nil, err
	}
	counters, err := r.Counters(p)
	return counters, errors.Join(err, r.Close())
}

// ChecksumFilter reports whether the tap has the filter that belongs to the port
// guard, and if not, why. It looks at the network namespace of the calling thread,
// and needs no privileges.
func (p Plan) ChecksumFilter() (on bool, why string, err error) {
	return engine.ChecksumFilter(p.NIC())
}
