package ra

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/journal"
)

// Silence is why a message gets no answer. It is an error, and the key under
// which Status counts such messages.
type Silence = journal.Silence

// Reasons to stay silent.
const (
	// BadFrame: not a whole IPv6/ICMPv6 packet, or one larger than any solicitation.
	BadFrame = journal.BadFrame
	// BadChecksum: the ICMPv6 checksum is wrong.
	BadChecksum Silence = "bad-checksum"
	// OtherSource: the frame's Ethernet source is not the guest, or the packet's
	// source cannot be answered.
	OtherSource Silence = "other-source"
	// BadHopLimit: a router has forwarded it. It is not from this link.
	BadHopLimit Silence = "bad-hop-limit"
	// Malformed: not a solicitation by RFC 4861 §6.1.1.
	Malformed Silence = "malformed"
	// OverBudget: more messages than the budget allows; the kernel dropped them.
	OverBudget = journal.OverBudget
	// Unsent: there was an answer, but the link did not take it.
	Unsent = journal.Unsent
)

const (
	hopLimit        = 255 // RFC 4861 §4.2
	solicitationLen = 8
)

// filter lets router solicitations pass.
var filter = packet.IPv6Filter(unix.IPPROTO_ICMPV6, 0, 1, typeSolicitation)

// parseSolicitation reads a router solicitation of the guest from a frame, and
// returns who asks: an address, or the unspecified one. The checks are those of
// RFC 4861 §6.1.1.
func parseSolicitation(frame []byte, guest packet.MAC, checksumPending bool) (netip.Addr, error) {
	p, err := packet.Parse6(frame, unix.IPPROTO_ICMPV6, checksumPending)
	switch {
	case errors.Is(err, packet.ErrBadChecksum):
		return netip.Addr{}, BadChecksum
	case err != nil:
		return netip.Addr{}, BadFrame
	case p.SrcMAC != guest, p.Src.IsMulticast(), p.Src.IsLoopback(), p.Src.Is4In6():
		return netip.Addr{}, OtherSource
	case p.HopLimit != hopLimit:
		return netip.Addr{}, BadHopLimit
	case len(p.Payload) < solicitationLen, p.Payload[0] != typeSolicitation, p.Payload[1] != 0:
		return netip.Addr{}, Malformed
	}
	for rest := p.Payload[solicitationLen:]; len(rest) > 0; {
		var option []byte
		var ok bool
		if option, rest, ok = nextOption(rest); !ok || option[0] == optSourceMAC && p.Src.IsUnspecified() {
			return netip.Addr{}, Malformed
		}
	}
	return p.Src, nil
}
