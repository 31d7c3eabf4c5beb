package prepare

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Flags of a neighbour advertisement: from a router, solicited, overriding what
// was known (RFC 4861 section 4.4).
const routerSolicitedOverride = 0xe000

// answers6 turns a neighbour solicitation for a router or a permanent neighbour
// into the advertisement, as answers does it for ARP. The first solicitation is
// sent to the solicited-node multicast address, with the sender's MAC in an
// option; later ones are sent to the address itself, with or without it (RFC
// 4861 sections 4.3 and 7.3.3).
func (p Plan) answers6(address netip.Addr, mac mac.Addr) []rule {
	return []rule{
		p.answer6(address, mac, solicitedNode(address), true),
		p.answer6(address, mac, address, true),
		p.answer6(address, mac, address, false),
	}
}

func (p Plan) answer6(address netip.Addr, mac mac.Addr, sentTo netip.Addr, option bool) rule {
	length := uint16(ndOptions)
	parts := []match{
		onEthernet(), etherSourceAndType(p.MAC, "ip6"), ip6Destination(sentTo),
		isProtocol("ipv6-icmp"), typeIs("icmpv6", neighborSolicitation), noFlags(), ndTargetIs(address),
	}
	advertisement, flags := []byte{neighborAdvertisement, 0}, bigEndian(routerSolicitedOverride)
	asker, answerer := append([]byte{sourceLinkLayerAddress, 1}, p.MAC[:]...), append([]byte{targetLinkLayerAddress, 1}, mac[:]...)
	if option {
		length += 8
		parts = append(parts, linkLayerOption(sourceLinkLayerAddress, p.MAC))
	} else {
		asker, answerer = nil, nil
	}
	parts = append(parts, ip6LengthAndHopLimit(length), counted())
	parts = append(parts, p.toGuestFrom(mac)...)
	// The sender's address moves, which the checksum over both does not show; what
	// comes in the place of what is known. The kernel brings the checksum in line
	// with what is written to type and code, so that the whole difference is written
	// there, and then what they are to be.
	sum := sum16(advertisement, flags, address.AsSlice(), complement(sentTo.AsSlice()), answerer, complement(asker))
	parts = append(parts,
		match{text: "@nh,192,128 set @nh,64,128", exprs: []expr.Any{
			&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16},
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: unix.NFT_REG_1, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16},
		}},
		writeRaw("nh", expr.PayloadBaseNetworkHeader, 8, address.AsSlice()),
		summed(fmt.Sprintf("icmpv6 type set %d", sum[0]), []byte{0, 0xff}, []byte{sum[0], 0}),
		summed(fmt.Sprintf("icmpv6 code set %d", sum[1]), []byte{0xff, 0}, []byte{0, sum[1]}),
		writeRaw("th", expr.PayloadBaseTransportHeader, 0, advertisement),
		writeRaw("th", expr.PayloadBaseTransportHeader, 4, flags))
	if option {
		parts = append(parts, writeRaw("th", expr.PayloadBaseTransportHeader, ndOptions, answerer))
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

// ip6LengthAndHopLimit is ip6Length of a packet that no router has passed on (RFC
// 4861 section 3.1).
func ip6LengthAndHopLimit(n uint16) match {
	return match{
		text:  ip6Length(n).text + " ip6 hoplimit 255",
		exprs: comparePayload(expr.PayloadBaseNetworkHeader, 4, append(bigEndian(n), unix.IPPROTO_ICMPV6, 255)),
	}
}

// noFlags matches a solicitation as all are sent, with zeros in the place of an
// advertisement's flags.
func noFlags() match { return ndBytes(4, []byte{0, 0, 0, 0}) }

// summed changes the type or the code of an ICMPv6 message, which are one word of
// its checksum, and brings that in line.
func summed(text string, keep, set []byte) match {
	return match{text: text, exprs: []expr.Any{
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Bitwise{SourceRegister: unix.NFT_REG_1, DestRegister: unix.NFT_REG_1, Len: 2, Mask: keep, Xor: set},
		&expr.Payload{
			OperationType: expr.PayloadWrite, SourceRegister: unix.NFT_REG_1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: 2,
		},
	}}
}

// writeRaw writes to a header and leaves its checksum alone.
func writeRaw(header string, base expr.PayloadBase, offset uint32, value []byte) match {
	return match{text: fmt.Sprintf("@%s,%d,%d set %s", header, 8*offset, 8*len(value), hexOf(value)), exprs: writePayload(base, offset, value)}
}

// sum16 is the ones' complement sum of 16-bit words (RFC 1071).
func sum16(parts ...[]byte) []byte {
	var sum uint32
	for _, b := range parts {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(b[i])<<8 | uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return bigEndian(uint16(sum))
}

// complement makes what is taken away of what is added.
func complement(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = ^b[i]
	}
	return out
}
