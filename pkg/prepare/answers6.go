package prepare

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/discover"
)

// Flags of a neighbour advertisement: from a router, solicited, overriding what
// was known (RFC 4861 section 4.4).
const routerSolicitedOverride = 0xe000

// answers6 turns a neighbour solicitation for a router or a permanent neighbour
// into the advertisement, as answers does it for ARP. The first solicitation is
// sent to the solicited-node multicast address, with the sender's MAC in an
// option; later ones are sent to the address itself, with or without it (RFC
// 4861 sections 4.3 and 7.3.3).
func (p Plan) answers6(address netip.Addr, mac discover.HardwareAddr) []rule {
	return []rule{
		p.answer6(address, mac, solicitedNode(address), true),
		p.answer6(address, mac, address, true),
		p.answer6(address, mac, address, false),
	}
}

func (p Plan) answer6(address netip.Addr, mac discover.HardwareAddr, sentTo netip.Addr, option bool) rule {
	length := uint16(ndOptions)
	parts := []match{
		etherType("ip6"), etherSource("==", p.MAC), ip6Destination(sentTo), hopLimit255(),
		l4proto("==", "ipv6-icmp", unix.IPPROTO_ICMPV6), icmp6Type(neighborSolicitation), ndTargetIs(address),
	}
	if option {
		length += 8
		parts = append(parts, linkLayerOption(sourceLinkLayerAddress, p.MAC))
	}
	parts = append(parts, ip6Length(length), match{"counter", []expr.Any{&expr.Counter{}}},
		match{
			fmt.Sprintf("ether daddr set %s ether saddr set %s", p.MAC, mac),
			writePayload(expr.PayloadBaseLLHeader, 0, slices.Concat(p.MAC, mac)),
		},
		match{"ip6 daddr set ip6 saddr", []expr.Any{
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
		}},
		match{"ip6 saddr set " + address.String(), writePayload(expr.PayloadBaseNetworkHeader, 8, address.AsSlice())},
		match{"icmpv6 type set nd-neighbor-advert", writeICMP6(0, []byte{neighborAdvertisement, 0})},
	)
	// The checksum covers the addresses too (RFC 8200 section 8.1). The sender's
	// has only moved, but address has come in the place of sentTo. The kernel
	// brings the checksum in line with what is written to ICMPv6, so that
	// difference is written to the flags, and then the flags alone.
	flags := uint16(routerSolicitedOverride)
	parts = append(parts, match{
		fmt.Sprintf("icmpv6 flags set 0x%x", flags),
		append(writeICMP6(4, bigEndian(sum16(bigEndian(flags), address.AsSlice(), complement(sentTo.AsSlice())))),
			writePayload(expr.PayloadBaseTransportHeader, 4, bigEndian(flags))...),
	})
	if option {
		parts = append(parts, match{
			fmt.Sprintf("@th,%d,64 set 0x%x", 8*ndOptions, append([]byte{targetLinkLayerAddress, 1}, mac...)),
			writeICMP6(ndOptions, append([]byte{targetLinkLayerAddress, 1}, mac...)),
		})
	}
	r := ruleOf(parts...)
	r.text += " dup to " + p.Tap.Name + " drop"
	r.sendTo = p.Tap.Name
	return r
}

// solicitedNode is the multicast group of those who may have the address (RFC
// 4291 section 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// hopLimit255 matches a packet that no router has passed on (RFC 4861 section 3.1).
func hopLimit255() match {
	return match{"ip6 hoplimit 255", comparePayload(expr.PayloadBaseNetworkHeader, 7, []byte{255})}
}

// writeICMP6 writes to the ICMPv6 message and brings its checksum in line.
func writeICMP6(offset uint32, value []byte) []expr.Any {
	exprs := writePayload(expr.PayloadBaseTransportHeader, offset, value)
	write := exprs[1].(*expr.Payload)
	write.CsumType, write.CsumOffset = expr.CsumTypeInet, 2
	return exprs
}

// sum16 is the ones' complement sum of 16-bit words (RFC 1071).
func sum16(parts ...[]byte) uint16 {
	var sum uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// complement makes what is taken away of what is added.
func complement(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}

func bigEndian(v uint16) []byte { return []byte{byte(v >> 8), byte(v)} }
