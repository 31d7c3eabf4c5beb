package guard

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Answers returns the rules that answer the VM for the NIC's neighbors, where the
// netdev family has what its tap sends. Some CNIs give the pod a gateway that answers
// no ARP, and the neighbor's MAC along with it; the VM can't be told that by DHCP. A
// request from the tap is turned into the reply and sent back, by the kernel alone,
// so that the VM finds its gateway also when nobody serves any more. back is what
// sends a frame back by the tap.
func Answers(n guest.NIC, back ...nft.Part) (out []nft.Rule) {
	for _, o := range n.Answers {
		if o.Address.Is4() {
			out = append(out, append(answer4(n, o), back...))
			continue
		}
		// The first solicitation is sent to the solicited-node multicast address, with
		// the sender's MAC in an option; later ones are sent to the address itself, with
		// or without it (RFC 4861 sections 4.3 and 7.3.3).
		for _, r := range []nft.Rule{answer6(n, o, solicitedNode(o.Address), true), answer6(n, o, o.Address, true), answer6(n, o, o.Address, false)} {
			out = append(out, append(r, back...))
		}
	}
	return out
}

// answer4 turns a request for the neighbor into its reply: all of the fields are
// known, since there is one VM.
func answer4(n guest.NIC, o guest.Neighbor) nft.Rule {
	return slices.Concat(nft.Rule{
		nft.EtherSource.Is(n.MAC), arp, nft.ARPOperation.Is(nft.Request), nft.ARPTargetIP.Is(o.Address), nft.Count,
	}, sentBack(n, o), nft.Rule{
		nft.ARPOperation.Set(nft.Reply),
		nft.ARPSenderMAC.Set(o.MAC), nft.ARPSenderIP.Set(o.Address),
		nft.ARPTargetMAC.Set(n.MAC), nft.ARPTargetIP.Set(n.IPv4.Address.Addr()),
	})
}

// sentBack makes a frame one from the neighbor to the VM.
func sentBack(n guest.NIC, o guest.Neighbor) nft.Rule {
	return nft.Rule{nft.EtherDestination.Set(n.MAC), nft.EtherSource.Set(o.MAC)}
}

// answer6 turns a neighbor solicitation into the advertisement.
func answer6(n guest.NIC, o guest.Neighbor, sentTo netip.Addr, hasOption bool) nft.Rule {
	rule := nft.Rule{
		nft.EtherSource.Is(n.MAC), ip6, nft.IP6Destination.Is(sentTo), icmpv6, solicits,
		nft.Transport(4).Is([]byte{0, 0, 0, 0}), // as all are sent, in the place of an advertisement's flags
		target(o.Address),
	}
	length := ndOptions
	var asks, answers []byte // options
	if hasOption {
		length += 8
		asks, answers = option(sourceLinkLayerAddress, n.MAC), option(targetLinkLayerAddress, o.MAC)
		rule = append(rule, linkLayer(sourceLinkLayerAddress, n.MAC))
	}
	// No router has passed it on (RFC 4861 section 3.1). The advertisement is from a
	// router, solicited, and overrides what was known (section 4.4).
	rule = slices.Concat(rule, alone(length), nft.Rule{nft.IP6HopLimit.Is(255), nft.Count}, sentBack(n, o))
	kind, flags := []byte{neighborAdvertisement, 0}, []byte{0xe0, 0}
	// The sender's address moves, which the checksum over both does not show; what
	// comes in the place of what is known. The kernel brings the checksum in line
	// with what is written to type and code, so that the whole difference is written
	// there, and then what they are to be.
	sum := Sum(kind, flags, o.Address.AsSlice(), Complement(sentTo.AsSlice()), answers, Complement(asks))
	rule = append(rule,
		nft.Network(24).SetFrom(nft.Network(8), 16), nft.Network(8).Set(o.Address.AsSlice()),
		nft.SetSummed(nft.ICMPv6Type, sum[0]), nft.SetSummed(nft.ICMPv6Code, sum[1]),
		nft.Transport(0).Set(kind), nft.Transport(4).Set(flags))
	if hasOption {
		rule = append(rule, nft.Transport(ndOptions).Set(answers))
	}
	return rule
}

// solicitedNode is the multicast group of those who may have the address (RFC
// 4291 section 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// Sum is the ones' complement sum of 16-bit words (RFC 1071).
func Sum(parts ...[]byte) []byte {
	var sum uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return binary.BigEndian.AppendUint16(nil, uint16(sum))
}

// Complement makes what is taken away of what is added.
func Complement(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}
