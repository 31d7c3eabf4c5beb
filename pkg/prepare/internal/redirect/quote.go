package redirect

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/guard"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Errors of ICMP and ICMPv6 about what the sender's alias was used for: where they
// begin to quote the packet, behind type, code, checksum and four bytes, of which the
// first two are zero.
const (
	quoted = 8
	unused = 4
)

// requote are rules for ICMP errors that pass the alias: the packet that they quote has
// the address that the other side knows, or it would not know the packet for its own. It
// is at that place of the quoted header. Other rules then judge the frame.
//
// ICMP's checksum follows what is written to its type and code, and nothing else. So the
// whole difference is written there, and then they are put back. Nobody looks at the
// checksum of a quoted header, which stays.
func (f family) requote(at uint32, is, to netip.Addr, frame ...nft.Part) (out []nft.Rule) {
	place, kind, code := nft.Transport(quoted+at), nft.Transport(0), nft.Transport(1)
	savedKind, savedCode := nft.Transport(unused), nft.Transport(unused+1) // two bytes at once nft(8) takes for a port
	sum := guard.Sum(to.AsSlice(), guard.Complement(is.AsSlice()))
	for _, match := range f.errors {
		out = append(out, slices.Concat(nft.Rule{f.is}, frame, match, nft.Rule{
			savedKind.Is([]byte{0, 0}), place.Is(is.AsSlice()),
			savedKind.SetFrom(kind, 1), savedCode.SetFrom(code, 1), kind.Set([]byte{0, 0}),
			nft.SetSummed(f.icmpType, sum[0]), nft.SetSummed(f.icmpCode, sum[1]),
			kind.SetFrom(savedKind, 1), code.SetFrom(savedCode, 1), savedKind.Set([]byte{0, 0}),
			place.Set(to.AsSlice()),
		}))
	}
	return out
}
