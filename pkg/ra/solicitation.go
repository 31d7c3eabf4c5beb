package ra

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/lease"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// solicitationLen is the length of a router solicitation without options.
const solicitationLen = 8

// filter lets router solicitations pass.
var filter = packet.IPv6Filter(unix.IPPROTO_ICMPV6, 0, 1, packet.RouterSolicitation)

// parseSolicitation reads a router solicitation of the guest from a frame, and
// returns who asks: an address, or the unspecified one. The checks are those of
// RFC 4861 §6.1.1.
func parseSolicitation(frame []byte, guest mac.Addr, checksumPending bool) (netip.Addr, error) {
	p, err := packet.Parse6(frame, unix.IPPROTO_ICMPV6, checksumPending)
	switch {
	case err != nil:
		return netip.Addr{}, err
	case p.SrcMAC != guest, p.Src.IsMulticast(), p.Src.IsLoopback(), p.Src.Is4In6():
		return netip.Addr{}, lease.DropOtherSource
	case p.HopLimit != packet.HopLimitND:
		return netip.Addr{}, lease.DropBadHopLimit
	case len(p.Payload) < solicitationLen, p.Payload[0] != packet.RouterSolicitation, p.Payload[1] != 0:
		return netip.Addr{}, lease.DropMalformed
	}
	for rest := p.Payload[solicitationLen:]; len(rest) > 0; {
		var option []byte
		var ok bool
		if option, rest, ok = packet.CutOption(rest); !ok || option[0] == packet.OptionSourceMAC && p.Src.IsUnspecified() {
			return netip.Addr{}, lease.DropMalformed
		}
	}
	return p.Src, nil
}
