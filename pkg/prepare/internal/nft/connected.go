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

// Connected are connections that the network namespace's sockets have when the set is
// made, as elements of a peer's address, the protocol, the peer's port and the own one.
type Connected struct {
	From    []netip.Addr  // own addresses; none: no connections
	Timeout time.Duration // of those of UDP; the others have the set's
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

// elements are those of some connections.
func (c Connected) elements(all []nl.Connection) (out []flow) {
	for _, conn := range all {
		if len(out) == maxConnected || !slices.Contains(c.From, conn.Local.Addr()) {
			continue
		}
		part := func(b ...byte) []byte { return append(b, make([]byte, -len(b)&3)...) } // registers are of four bytes
		peer, own := binary.BigEndian.AppendUint16(nil, conn.Remote.Port()), binary.BigEndian.AppendUint16(nil, conn.Local.Port())
		f := flow{key: slices.Concat(conn.Remote.Addr().AsSlice(), part(conn.Protocol), part(peer...), part(own...))}
		if conn.Protocol == unix.IPPROTO_UDP {
			f.timeout = c.Timeout
		}
		out = append(out, f)
	}
	return out
}

// flow is an element of a set with a timeout, which is the set's own if it is 0.
type flow struct {
	key     []byte
	timeout time.Duration
}

func (f flow) encode(a *attributes) {
	if f.timeout > 0 {
		a.uint64(unix.NFTA_SET_ELEM_TIMEOUT, uint64(f.timeout.Milliseconds()))
	}
	a.value(unix.NFTA_SET_ELEM_KEY, f.key)
}

// addConnections adds those that there are to the sets that are made to hold them.
func (b *batch) addConnections(c Change) error {
	made := slices.DeleteFunc(slices.Clone(c.Sets), func(s Set) bool {
		return len(s.Connected.From) == 0 || slices.Contains(c.kept(c.Now), s.Name)
	})
	if len(made) == 0 {
		return nil
	}
	all, err := nl.Connections()
	for _, s := range made {
		addElements(b, c.Name, s.Name, s.Connected.elements(all))
	}
	return err
}
