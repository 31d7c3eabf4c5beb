package guard

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// RouterQuestions returns the rules that put the VM's questions for its router to the
// gateway by the address that this has, where the netdev family has what the tap sends.
// The frame goes on. The VM may ask one neighbor, by the MAC that it knows; all are asked,
// since the gateway may have another one by now.
func RouterQuestions(n guest.NIC) (out []nft.Rule) {
	r := n.RenamedRouter()
	if r == nil {
		return nil
	}
	to := solicitedNode(r.Gateway)
	for _, sentTo := range []netip.Addr{solicitedNode(r.LinkLocal), r.LinkLocal} {
		out = append(out, slices.Concat(nft.Rule{
			nft.EtherSource.Is(n.MAC), ip6, nft.IP6Destination.Is(sentTo), icmpv6, solicits, target(r.LinkLocal), nft.IP6NextHeader.Is(nft.ICMPv6), nft.Count,
			nft.EtherDestination.Set(groupMAC(to)), nft.Network(24).Set(to.AsSlice()),
		}, retargeted(neighborSolicitation, r.LinkLocal, r.Gateway, to.AsSlice(), Complement(sentTo.AsSlice()))))
	}
	return out
}

// groupMAC is the Ethernet address of a multicast group (RFC 2464 section 7).
func groupMAC(group netip.Addr) mac.Addr {
	b := group.As16()
	return mac.Addr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// RouterAnswers returns the rule that tells the VM of its router what the gateway says of
// itself, where the netdev family has what comes from the network. The frame goes on as it
// came.
func RouterAnswers(n guest.NIC) []nft.Rule {
	r := n.RenamedRouter()
	if r == nil {
		return nil
	}
	return []nft.Rule{slices.Concat(
		nft.Rule{ip6, icmpv6, advertises, target(r.Gateway), nft.IP6NextHeader.Is(nft.ICMPv6), nft.Count},
		retargeted(neighborAdvertisement, r.Gateway, r.LinkLocal),
		nft.Rule{nft.CopyTo(n.Tap)},
		retargeted(neighborAdvertisement, r.LinkLocal, r.Gateway))}
}

// retargeted makes a message about one neighbor one about another. others are what else of
// the packet changes that its checksum is of, as in answer6.
func retargeted(kind byte, from, to netip.Addr, others ...[]byte) nft.Rule {
	begin := []byte{kind, 0}
	sum := Sum(append([][]byte{begin, to.AsSlice(), Complement(from.AsSlice())}, others...)...)
	return nft.Rule{
		nft.SetSummed(nft.ICMPv6Type, sum[0]), nft.SetSummed(nft.ICMPv6Code, sum[1]),
		nft.Transport(0).Set(begin), nft.Transport(ndTarget).Set(to.AsSlice()),
	}
}
