package prepare

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// ICMPv6 types of neighbour discovery (RFC 4861 section 4).
const (
	routerSolicitation    = 133
	routerAdvertisement   = 134
	neighborSolicitation  = 135
	neighborAdvertisement = 136
	redirect              = 137
)

// Options of neighbour discovery, and where the first one of a solicitation or
// an advertisement begins in the ICMPv6 message (RFC 4861 sections 4.3, 4.4, 4.6.1).
const (
	sourceLinkLayerAddress = 1
	targetLinkLayerAddress = 2
	ndNonce                = 14 // RFC 3971 section 5.3.2
	ndTarget               = 8
	ndOptions              = 24
)

const (
	dhcp6ClientPort = 546
	dhcp6ServerPort = 547
)

// ipv6FromGuest lets the VM's own address and its link-local ones leave, and
// what it says of itself in neighbour discovery. It may choose its link-local
// address (RFC 7217), but not the router's. Routers and DHCPv6 are ours to
// answer for, on the tap alone. As with IPv4, only a packet whose headers the
// kernel could follow is any of these.
func (p Plan) ipv6FromGuest() []rule {
	if p.IPv6 == nil {
		return nil
	}
	isICMP, notICMP := l4proto("==", "ipv6-icmp", unix.IPPROTO_ICMPV6), l4proto("!=", "ipv6-icmp", unix.IPPROTO_ICMPV6)
	ip6 := etherType("ip6")
	// Most of what there is goes first.
	out := append([]rule{ruleOf(ip6, plainTCP(), ip6Source(p.IPv6.Address.Addr()), accept())}, hidingFragments()...)
	for _, t := range []uint8{routerSolicitation, routerAdvertisement, redirect} {
		out = append(out, ruleOf(ip6, isICMP, icmp6Type(t), drop()))
	}
	if r := p.IPv6.Router; r != nil {
		out = append(out,
			ruleOf(ip6, ip6Source(r.LinkLocal), drop()),
			ruleOf(ip6, isICMP, icmp6Type(neighborAdvertisement), ndTargetIs(r.LinkLocal), drop()),
			ruleOf(ip6, isICMP, icmp6Type(neighborSolicitation), ip6Source(netip.IPv6Unspecified()), ndTargetIs(r.LinkLocal), drop()))
	}
	own := []match{ip6Source(p.IPv6.Address.Addr()), ip6LinkLocalSource()}
	for _, source := range own {
		// Without an option, or with the VM's MAC in it and nothing more.
		out = append(out,
			ruleOf(ip6, isICMP, icmp6Type(neighborSolicitation), source, ip6Length(ndOptions), accept()),
			ruleOf(ip6, isICMP, icmp6Type(neighborSolicitation), source, ip6Length(ndOptions+8), linkLayerOption(sourceLinkLayerAddress, p.MAC), accept()))
		for _, target := range []match{ndTargetIs(p.IPv6.Address.Addr()), ndTargetLinkLocal()} {
			out = append(out,
				ruleOf(ip6, isICMP, icmp6Type(neighborAdvertisement), source, target, ip6Length(ndOptions), accept()),
				ruleOf(ip6, isICMP, icmp6Type(neighborAdvertisement), source, target, ip6Length(ndOptions+8), linkLayerOption(targetLinkLayerAddress, p.MAC), accept()))
		}
	}
	// Duplicate address detection asks from no address, without an option (RFC
	// 4862 section 5.4.2) or with a nonce (RFC 7527 section 4.1).
	for _, target := range []match{ndTargetIs(p.IPv6.Address.Addr()), ndTargetLinkLocal()} {
		out = append(out,
			ruleOf(ip6, isICMP, icmp6Type(neighborSolicitation), ip6Source(netip.IPv6Unspecified()), target, ip6Length(ndOptions), accept()),
			ruleOf(ip6, isICMP, icmp6Type(neighborSolicitation), ip6Source(netip.IPv6Unspecified()), target, ip6Length(ndOptions+8), nonceOption(), accept()))
	}
	for _, t := range []uint8{neighborSolicitation, neighborAdvertisement} {
		out = append(out, ruleOf(ip6, isICMP, icmp6Type(t), drop()))
	}
	for _, port := range []uint16{dhcp6ClientPort, dhcp6ServerPort} {
		out = append(out, ruleOf(ip6, udpPort("dport", port), drop()))
	}
	out = append(out, ruleOf(ip6, udpPort("sport", dhcp6ServerPort), drop()))
	for _, source := range own {
		out = append(out, ruleOf(ip6, isICMP, source, accept()), ruleOf(ip6, notICMP, source, accept()))
	}
	// Multicast listener reports before there is an address (RFC 3590).
	return append(out, ruleOf(ip6, isICMP, icmp6Type(mldv2Report), ip6Source(netip.IPv6Unspecified()), accept()))
}

const mldv2Report = 143 // RFC 9777

// ipv6ToGuest keeps the pod network's routers and DHCPv6 from the VM: it is
// told of the router by us.
func (p Plan) ipv6ToGuest() []rule {
	if p.IPv6 == nil {
		return nil
	}
	ip6 := etherType("ip6")
	isICMP, notICMP := l4proto("==", "ipv6-icmp", unix.IPPROTO_ICMPV6), l4proto("!=", "ipv6-icmp", unix.IPPROTO_ICMPV6)
	return append(append([]rule{ruleOf(ip6, plainTCP(), accept())}, hidingFragments()...),
		ruleOf(ip6, isICMP, icmp6Type(routerSolicitation), drop()),
		ruleOf(ip6, isICMP, icmp6Type(routerAdvertisement), drop()),
		ruleOf(ip6, isICMP, icmp6Type(redirect), drop()),
		ruleOf(ip6, udpPort("dport", dhcp6ClientPort), drop()),
		ruleOf(ip6, udpPort("dport", dhcp6ServerPort), drop()),
		ruleOf(ip6, isICMP, accept()),
		ruleOf(ip6, notICMP, accept()))
}

// plainTCP matches TCP without extension headers.
func plainTCP() match {
	tcp := l4proto("==", "tcp", unix.IPPROTO_TCP)
	return match{tcp.text + " ip6 nexthdr tcp", append(tcp.exprs, comparePayload(expr.PayloadBaseNetworkHeader, 6, []byte{unix.IPPROTO_TCP})...)}
}

// hidingFragments drops fragments in which extension headers come first. They
// can fill the first fragment, so that what is ICMPv6 or UDP in the second is
// of a type or for a port that nobody sees, and the kernel takes the second's
// own word for what it is. Without them the first fragment, which is 8 bytes at
// least, has both. RFC 7112 wants the same of hosts.
func hidingFragments() []rule {
	var out []rule
	for _, header := range []byte{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS} {
		out = append(out, ruleOf(etherType("ip6"), fragmentNextHeader(header), drop()))
	}
	return out
}

// fragmentNextHeader matches a packet with a fragment header that names what
// comes after it (RFC 8200 section 4.5).
func fragmentNextHeader(header byte) match {
	return match{fmt.Sprintf("frag nexthdr %d", header), []expr.Any{
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{header}},
	}}
}

func l4proto(op, name string, number byte) match {
	exprs := compareMeta(expr.MetaKeyL4PROTO, []byte{number})
	if op == "!=" {
		exprs[1].(*expr.Cmp).Op = expr.CmpOpNeq
		return match{"meta l4proto != " + name, exprs}
	}
	return match{"meta l4proto " + name, exprs}
}

func icmp6Type(t uint8) match {
	return match{fmt.Sprintf("icmpv6 type %d", t), comparePayload(expr.PayloadBaseTransportHeader, 0, []byte{t})}
}

func ip6Source(a netip.Addr) match {
	return match{"ip6 saddr " + a.String(), comparePayload(expr.PayloadBaseNetworkHeader, 8, a.AsSlice())}
}

func ip6Destination(a netip.Addr) match {
	return match{"ip6 daddr " + a.String(), comparePayload(expr.PayloadBaseNetworkHeader, 24, a.AsSlice())}
}

// linkLocalPrefix is what all link-local addresses in use begin with (RFC 4291
// section 2.5.6).
var linkLocalPrefix = []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0}

func ip6LinkLocalSource() match {
	return match{"ip6 saddr fe80::/64", comparePayload(expr.PayloadBaseNetworkHeader, 8, linkLocalPrefix)}
}

// ip6Length matches a packet without extension headers and with so many bytes
// after its header.
func ip6Length(n uint16) match {
	return match{
		fmt.Sprintf("ip6 length %d ip6 nexthdr ipv6-icmp", n),
		comparePayload(expr.PayloadBaseNetworkHeader, 4, []byte{byte(n >> 8), byte(n), unix.IPPROTO_ICMPV6}),
	}
}

func ndTargetIs(a netip.Addr) match {
	return match{"icmpv6 taddr " + a.String(), comparePayload(expr.PayloadBaseTransportHeader, ndTarget, a.AsSlice())}
}

func ndTargetLinkLocal() match {
	return match{"icmpv6 taddr fe80::/64", comparePayload(expr.PayloadBaseTransportHeader, ndTarget, linkLocalPrefix)}
}

// nonceOption matches a first option that is a nonce of six bytes.
func nonceOption() match {
	option := []byte{ndNonce, 1}
	return match{fmt.Sprintf("@th,%d,16 0x%x", 8*ndOptions, option), comparePayload(expr.PayloadBaseTransportHeader, ndOptions, option)}
}

// linkLayerOption matches a first option of that kind with that MAC.
func linkLayerOption(kind byte, mac []byte) match {
	option := append([]byte{kind, 1}, mac...) // its length is in units of 8 bytes
	return match{fmt.Sprintf("@th,%d,64 0x%x", 8*ndOptions, option), comparePayload(expr.PayloadBaseTransportHeader, ndOptions, option)}
}
