package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/nl"
)

// Connected are connections that the network namespace's sockets have when the table is
// made, or made anew, as elements of a peer's address, the protocol, the peer's port and the own one.
type Connected struct {
	From    []netip.Addr  // own addresses; none: no connections
	Timeout time.Duration // of those of UDP; those of TCP have the set's
}

// maxConnected is how many a set holds from the start: a transaction takes some more.
const maxConnected = 1 << 15

// text is in the words of ss(8).
func (c Connected) text() string {
	var words []string
	for _, a := range c.From {
		words = append(words, "src "+a.String())
	}
	return strings.Join(words, " or ")
}

// elements are those of some connections. timeout is of those of TCP; the kernel sets it
// from Linux 6.12 on of one that the set has already.
func (c Connected) elements(all []nl.Connection, timeout time.Duration) (out []flow) {
	for _, conn := range all {
		if len(out) == maxConnected || !slices.Contains(c.From, conn.Local.Addr()) {
			continue
		}
		part := func(b ...byte) []byte { return append(b, make([]byte, -len(b)&3)...) } // registers are of four bytes
		peer, own := binary.BigEndian.AppendUint16(nil, conn.Remote.Port()), binary.BigEndian.AppendUint16(nil, conn.Local.Port())
		f := flow{slices.Concat(conn.Remote.Addr().AsSlice(), part(conn.Protocol), part(peer...), part(own...)), timeout}
		if conn.Protocol == unix.IPPROTO_UDP {
			f.timeout = c.Timeout
		}
		out = append(out, f)
	}
	return out
}

// flow is an element of a set with a timeout.
type flow struct {
	key     []byte
	timeout time.Duration
}

func (f flow) encode(a *attributes) {
	a.uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(f.timeout.Milliseconds()))
	a.value(unix.NFTA_SET_ELEM_KEY, f.key)
}

// addConnections adds those that there are to the sets that hold them. One that is kept may
// not have them: by rules that are replaced it may not have been asked for.
func (b *batch) addConnections(c Change) error {
	holding := slices.DeleteFunc(slices.Clone(c.Sets), func(s Set) bool { return len(s.Connected.From) == 0 })
	if len(holding) == 0 {
		return nil
	}
	all, err := nl.Connections()
	for _, s := range holding {
		addElements(b, c.Name, s.Name, s.Connected.elements(all, s.Timeout))
	}
	return err
}
