package prepare

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
)

// Chains of the guard for IPv6.
const (
	fromGuestIPv6    = "from_guest_ip6"
	fromGuestOwnIPv6 = "from_guest_own_ip6" // from one of the VM's addresses
	fromGuestNoIPv6  = "from_guest_no_ip6"  // from no address
	toGuestIPv6      = "to_guest_ip6"
)

// Types of ICMPv6: multicast listener discovery (RFC 2710, RFC 9777), multicast
// router discovery (RFC 4286) and neighbour discovery (RFC 4861 section 4).
const (
	mldQuery              = 130
	mldv1Report           = 131
	mldv2Report           = 143
	mrdAdvertisement      = 151
	mrdTermination        = 153
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

// ipv6Chains are the chains that IPv6 goes to. They let the VM's own address and
// its link-local ones leave, and what it says of itself in neighbour discovery.
// Routers and DHCPv6 are ours to answer for, on the tap alone. As with IPv4, rules
// about ports and types come behind one for later fragments.
func (p Plan) ipv6Chains() []chain {
	if p.IPv6 == nil {
		return nil
	}
	return []chain{
		{name: fromGuestIPv6, rules: p.fromGuestIPv6()},
		{name: fromGuestOwnIPv6, rules: p.fromGuestOwnIPv6()},
		{name: fromGuestNoIPv6, rules: p.fromGuestNoIPv6()},
		{name: toGuestIPv6, rules: toGuestIPv6Rules()},
	}
}

// othersLinkLocals are the link-local addresses that are known to be somebody
// else's: the router's, the permanent neighbours', and those that go with their
// MACs. The VM may choose its own (RFC 7217), so all others may be its.
func (p Plan) othersLinkLocals() []netip.Addr {
	var out []netip.Addr
	add := func(a netip.Addr) {
		if a.IsLinkLocalUnicast() && a.Is6() && a != LinkLocal(p.MAC) && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	if r := p.IPv6.Router; r != nil {
		add(r.LinkLocal)
		add(LinkLocal(r.MAC))
	}
	for _, n := range p.neighbors() {
		add(n.Address)
		add(LinkLocal(n.MAC))
	}
	return out
}

func (p Plan) fromGuestIPv6() []rule {
	ip6 := etherType("ip6")
	var out []rule
	for _, a := range p.othersLinkLocals() {
		out = append(out, ruleOf(ip6, ip6Source(a), dropped(FromGuest, ForgedIP)))
	}
	return append(out,
		ruleOf(ip6, ip6Source(p.IPv6.Address.Addr()), goTo(fromGuestOwnIPv6)),
		ruleOf(ip6, ip6LinkLocalSource(), goTo(fromGuestOwnIPv6)),
		ruleOf(ip6, ip6Source(netip.IPv6Unspecified()), goTo(fromGuestNoIPv6)),
		ruleOf(dropped(FromGuest, ForgedIP)))
}

func (p Plan) fromGuestOwnIPv6() []rule {
	ip6, udp, icmp := etherType("ip6"), isProtocol("udp"), isProtocol("ipv6-icmp")
	out := []rule{ruleOf(ip6, udp, nextHeader("udp"),
		destinationPortNotIn(dhcp6ClientPort, dhcp6ServerPort), portIsNot("sport", dhcp6ServerPort), accept())}
	out = append(out, hidingFragments(FromGuest)...)
	out = append(out,
		ruleOf(ip6, laterFragment6(), notProtocol("ah"), accept()),
		ruleOf(ip6, udp, portIs("sport", dhcp6ServerPort), dropped(FromGuest, DHCPServer)),
		ruleOf(ip6, udp, portIs("dport", dhcp6ClientPort), dropped(FromGuest, DHCPServer)),
		ruleOf(ip6, udp, portIs("dport", dhcp6ServerPort), dropped(FromGuest, DHCPClient)),
		ruleOf(ip6, udp, portIsNot("dport", dhcp6ServerPort), accept()))
	out = append(out, routerRules(FromGuest)...)
	for _, t := range []uint8{mldQuery, mrdAdvertisement, mrdTermination} {
		out = append(out, ruleOf(ip6, icmp, typeIs("icmpv6", t), dropped(FromGuest, MulticastRouter)))
	}
	out = append(out, p.neighborRules()...)
	return append(out,
		ruleOf(ip6, icmp, typeIsNot("icmpv6", neighborAdvertisement), accept()),
		ruleOf(ip6, isProtocol("ah"), dropped(FromGuest, OtherProtocol)),
		ruleOf(ip6, notProtocol("udp"), notProtocol("ipv6-icmp"), accept()),
		ruleOf(dropped(FromGuest, Malformed)))
}

// neighborRules let pass what the VM says of itself, without an option, or with
// its MAC in it and nothing more.
func (p Plan) neighborRules() []rule {
	ip6, icmp := etherType("ip6"), isProtocol("ipv6-icmp")
	asks, says := typeIs("icmpv6", neighborSolicitation), typeIs("icmpv6", neighborAdvertisement)
	var out []rule
	for _, a := range p.othersLinkLocals() {
		out = append(out, ruleOf(ip6, icmp, says, ndTargetIs(a), dropped(FromGuest, ForgedND)))
	}
	out = append(out,
		ruleOf(ip6, icmp, asks, ip6Length(ndOptions), accept()),
		ruleOf(ip6, icmp, asks, ip6Length(ndOptions+8), linkLayerOption(sourceLinkLayerAddress, p.MAC), accept()))
	for _, target := range []match{ndTargetIs(p.IPv6.Address.Addr()), ndTargetLinkLocal()} {
		out = append(out,
			ruleOf(ip6, icmp, says, target, ip6Length(ndOptions), accept()),
			ruleOf(ip6, icmp, says, target, ip6Length(ndOptions+8), linkLayerOption(targetLinkLayerAddress, p.MAC), accept()))
	}
	return append(out,
		ruleOf(ip6, icmp, asks, dropped(FromGuest, ForgedND)),
		ruleOf(ip6, icmp, says, dropped(FromGuest, ForgedND)))
}

// fromGuestNoIPv6 is for who has no address yet: it looks for duplicates of the
// one that it will have, without an option (RFC 4862 section 5.4.2) or with a
// nonce (RFC 7527 section 4.1), and says what it listens to (RFC 3590).
func (p Plan) fromGuestNoIPv6() []rule {
	ip6, icmp, asks := etherType("ip6"), isProtocol("ipv6-icmp"), typeIs("icmpv6", neighborSolicitation)
	var out []rule
	for _, a := range p.othersLinkLocals() {
		out = append(out, ruleOf(ip6, icmp, asks, ndTargetIs(a), dropped(FromGuest, ForgedND)))
	}
	for _, target := range []match{ndTargetIs(p.IPv6.Address.Addr()), ndTargetLinkLocal()} {
		out = append(out,
			ruleOf(ip6, icmp, asks, target, ip6Length(ndOptions), accept()),
			ruleOf(ip6, icmp, asks, target, ip6Length(ndOptions+8), nonceOption(), accept()))
	}
	return append(out,
		ruleOf(ip6, icmp, asks, dropped(FromGuest, ForgedND)),
		ruleOf(ip6, icmp, typeIs("icmpv6", routerSolicitation), dropped(FromGuest, RouterSolicitation)),
		ruleOf(ip6, icmp, typeIs("icmpv6", mldv1Report), accept()),
		ruleOf(ip6, icmp, typeIs("icmpv6", mldv2Report), accept()),
		ruleOf(dropped(FromGuest, ForgedIP)))
}

// toGuestIPv6Rules keep the pod network's routers and DHCPv6 from the VM: it is
// told of the router by us.
func toGuestIPv6Rules() []rule {
	ip6, udp, icmp := etherType("ip6"), isProtocol("udp"), isProtocol("ipv6-icmp")
	out := []rule{ruleOf(ip6, udp, nextHeader("udp"), destinationPortNotIn(dhcp6ClientPort, dhcp6ServerPort), accept())}
	out = append(out, hidingFragments(ToGuest)...)
	out = append(out,
		ruleOf(ip6, laterFragment6(), notProtocol("ah"), accept()),
		ruleOf(ip6, udp, portIs("dport", dhcp6ServerPort), dropped(ToGuest, DHCPClient)),
		ruleOf(ip6, udp, portIs("dport", dhcp6ClientPort), dropped(ToGuest, DHCPServer)),
		ruleOf(ip6, udp, portIsNot("dport", dhcp6ServerPort), accept()))
	return append(append(out, routerRules(ToGuest)...),
		ruleOf(ip6, icmp, typeIsNot("icmpv6", routerAdvertisement), accept()),
		ruleOf(ip6, isProtocol("ah"), dropped(ToGuest, OtherProtocol)),
		ruleOf(ip6, notProtocol("udp"), notProtocol("ipv6-icmp"), accept()),
		ruleOf(dropped(ToGuest, Malformed)))
}

// routerRules keep off what hosts ask routers, and what these tell them.
func routerRules(where Direction) []rule {
	ip6, icmp := etherType("ip6"), isProtocol("ipv6-icmp")
	return []rule{
		ruleOf(ip6, icmp, typeIs("icmpv6", routerSolicitation), dropped(where, RouterSolicitation)),
		ruleOf(ip6, icmp, typeIs("icmpv6", routerAdvertisement), dropped(where, RouterAdvertisement)),
		ruleOf(ip6, icmp, typeIs("icmpv6", redirect), dropped(where, Redirect)),
	}
}

// hidingFragments drops fragments in which extension headers come first. They
// can fill the first fragment, so that what is ICMPv6 or UDP in the second is
// of a type or for a port that nobody sees, and the kernel takes the second's
// own word for what it is. Without them the first fragment, which is 8 bytes at
// least, has both. RFC 7112 wants the same of hosts.
func hidingFragments(where Direction) []rule {
	var out []rule
	for _, header := range []byte{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS} {
		out = append(out, ruleOf(etherType("ip6"), fragmentNextHeader(header), dropped(where, Malformed)))
	}
	return out
}

// fragmentNextHeader matches a packet with a fragment header that names what
// comes after it (RFC 8200 section 4.5).
func fragmentNextHeader(header byte) match {
	return match{text: fmt.Sprintf("frag nexthdr %d", header), exprs: []expr.Any{
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{header}},
	}}
}

// laterFragment6 is laterFragment for IPv6.
func laterFragment6() match {
	return match{text: "frag frag-off != 0", exprs: unequal(compareMasked(
		&expr.Exthdr{DestRegister: unix.NFT_REG_1, Op: expr.ExthdrOpIpv6, Type: unix.IPPROTO_FRAGMENT, Offset: 2, Len: 2},
		[]byte{0xff, 0xf8}, []byte{0, 0}))}
}

// nextHeader matches a packet without extension headers.
func nextHeader(name string) match {
	return match{text: "ip6 nexthdr " + name, exprs: comparePayload(expr.PayloadBaseNetworkHeader, 6, []byte{protocols[name]})}
}

func ip6Source(a netip.Addr) match {
	return match{text: "ip6 saddr " + a.String(), exprs: comparePayload(expr.PayloadBaseNetworkHeader, 8, a.AsSlice())}
}

func ip6Destination(a netip.Addr) match {
	return match{text: "ip6 daddr " + a.String(), exprs: comparePayload(expr.PayloadBaseNetworkHeader, 24, a.AsSlice())}
}

// linkLocalPrefix is what all link-local addresses in use begin with (RFC 4291
// section 2.5.6).
var linkLocalPrefix = []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0}

func ip6LinkLocalSource() match {
	return match{text: "ip6 saddr fe80::/64", exprs: comparePayload(expr.PayloadBaseNetworkHeader, 8, linkLocalPrefix)}
}

// ip6Length matches a packet without extension headers and with so many bytes
// after its header.
func ip6Length(n uint16) match {
	return match{
		text:  fmt.Sprintf("ip6 length %d ip6 nexthdr ipv6-icmp", n),
		exprs: comparePayload(expr.PayloadBaseNetworkHeader, 4, append(bigEndian(n), unix.IPPROTO_ICMPV6)),
	}
}

// ndTargetIs and ndTargetLinkLocal match whom a solicitation or an advertisement
// is about. Newer versions of nft(8) than Debian 12's call that icmpv6 taddr.
func ndTargetIs(a netip.Addr) match { return ndBytes(ndTarget, a.AsSlice()) }

func ndTargetLinkLocal() match { return ndBytes(ndTarget, linkLocalPrefix) }

// nonceOption matches a first option that is a nonce of six bytes.
func nonceOption() match { return ndBytes(ndOptions, []byte{ndNonce, 1}) }

// linkLayerOption matches a first option of that kind with that MAC.
func linkLayerOption(kind byte, mac mac.Addr) match {
	return ndBytes(ndOptions, append([]byte{kind, 1}, mac[:]...)) // its length is in units of 8 bytes
}

func ndBytes(offset uint32, value []byte) match {
	return match{
		text:  fmt.Sprintf("@th,%d,%d %s", 8*offset, 8*len(value), hexOf(value)),
		exprs: comparePayload(expr.PayloadBaseTransportHeader, offset, value),
	}
}
