package guard

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Chains for IPv6. They let the VM's own address and its link-local ones leave, and
// what it says of itself in neighbor discovery. Routers and DHCPv6 are ours to answer
// for, on the tap alone. As with IPv4, rules about ports and types come behind one
// for later fragments.
const (
	fromGuestIPv6    = FromGuestChain + "_ip6"
	fromGuestOwnIPv6 = FromGuestChain + "_own_ip6" // from one of the VM's addresses
	fromGuestNoIPv6  = FromGuestChain + "_no_ip6"  // from no address
	toGuestIPv6      = ToGuestChain + "_ip6"
)

// Types of ICMPv6: multicast listener discovery (RFC 2710, RFC 9777), multicast
// router discovery (RFC 4286) and neighbor discovery (RFC 4861 section 4).
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

// Options of neighbor discovery, and where the target and the first option are in a
// solicitation or an advertisement (RFC 4861 sections 4.3, 4.4, 4.6.1). Newer
// versions of nft(8) than Debian 12's call the target icmpv6 taddr.
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

// linkLocals are all link-local addresses in use (RFC 4291 section 2.5.6).
var linkLocals = netip.MustParsePrefix("fe80::/64")

var (
	solicits   = nft.ICMPv6Type.Is(neighborSolicitation)
	advertises = nft.ICMPv6Type.Is(neighborAdvertisement)

	laterFragment6 = nft.IP6FragmentOffset.Not(0)
)

func fromGuest6(n guest.NIC, v verdicts) []nft.Chain {
	if n.IPv6 == nil {
		return nil
	}
	return []nft.Chain{
		{Name: fromGuestIPv6, Rules: fromGuestIPv6Rules(n, v)},
		{Name: fromGuestOwnIPv6, Rules: fromGuestOwnIPv6Rules(n, v)},
		{Name: fromGuestNoIPv6, Rules: fromGuestNoIPv6Rules(n, v)},
	}
}

// othersLinkLocals are the link-local addresses that are known to be somebody
// else's: the router's, those of whom the kernel answers for, and those that go with
// their MACs. The VM may choose its own (RFC 7217), so all others may be its.
func othersLinkLocals(n guest.NIC) (out []netip.Addr) {
	others := n.Answers
	if r := n.IPv6.Router; r != nil {
		others = append([]guest.Neighbor{{Address: r.LinkLocal, MAC: r.MAC}}, others...)
	}
	for _, o := range others {
		for _, a := range []netip.Addr{o.Address, o.MAC.LinkLocal()} {
			if linkLocals.Contains(a) && a != n.MAC.LinkLocal() && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

func fromGuestIPv6Rules(n guest.NIC, v verdicts) (out []nft.Rule) {
	for _, a := range othersLinkLocals(n) {
		out = append(out, nft.Rule{ip6, nft.IP6Source.Is(a), v.dropped(ForgedIP)})
	}
	return append(out,
		nft.Rule{ip6, nft.IP6Source.Is(n.IPv6.Address.Addr()), nft.GoTo(fromGuestOwnIPv6)},
		nft.Rule{ip6, nft.Within(nft.IP6Source, linkLocals), nft.GoTo(fromGuestOwnIPv6)},
		nft.Rule{ip6, nft.IP6Source.Is(netip.IPv6Unspecified()), nft.GoTo(fromGuestNoIPv6)},
		nft.Rule{v.dropped(ForgedIP)})
}

func fromGuestOwnIPv6Rules(n guest.NIC, v verdicts) []nft.Rule {
	return slices.Concat([]nft.Rule{
		{ip6, udp, nft.IP6NextHeader.Is(nft.UDP), nft.UDPDestination.NotIn(dhcp6ClientPort, dhcp6ServerPort), nft.UDPSource.Not(dhcp6ServerPort), v.Pass},
	}, hidingFragments(v), []nft.Rule{
		{ip6, laterFragment6, notAH, v.Pass},
		{ip6, udp, nft.UDPSource.Is(dhcp6ServerPort), v.dropped(DHCPServer)},
		{ip6, udp, nft.UDPDestination.Is(dhcp6ClientPort), v.dropped(DHCPServer)},
		{ip6, udp, nft.UDPDestination.Is(dhcp6ServerPort), v.dropped(DHCPClient)},
		{ip6, udp, nft.UDPDestination.Not(dhcp6ServerPort), v.Pass},
	}, routerRules(v), []nft.Rule{
		{ip6, icmpv6, nft.ICMPv6Type.Is(mldQuery), v.dropped(MulticastRouter)},
		{ip6, icmpv6, nft.ICMPv6Type.Is(mrdAdvertisement), v.dropped(MulticastRouter)},
		{ip6, icmpv6, nft.ICMPv6Type.Is(mrdTermination), v.dropped(MulticastRouter)},
	}, neighborRules(n, v), []nft.Rule{
		{ip6, icmpv6, nft.ICMPv6Type.Not(neighborAdvertisement), v.Pass},
	}, otherRules(v, ip6, nft.ICMPv6))
}

// neighborRules let pass what the VM says of itself, without an option, or with its
// MAC in it and nothing more.
func neighborRules(n guest.NIC, v verdicts) (out []nft.Rule) {
	for _, a := range othersLinkLocals(n) {
		out = append(out, nft.Rule{ip6, icmpv6, advertises, target(a), v.dropped(ForgedND)})
	}
	whole := func(extra int, parts ...nft.Part) nft.Rule {
		return slices.Concat(nft.Rule{ip6, icmpv6}, parts, alone(ndOptions+extra))
	}
	out = append(out,
		append(whole(0, solicits), v.Pass),
		append(whole(8, solicits), linkLayer(sourceLinkLayerAddress, n.MAC), v.Pass))
	for _, own := range ownTargets(n) {
		out = append(out,
			append(whole(0, advertises, own), v.Pass),
			append(whole(8, advertises, own), linkLayer(targetLinkLayerAddress, n.MAC), v.Pass))
	}
	return append(out,
		nft.Rule{ip6, icmpv6, solicits, v.dropped(ForgedND)},
		nft.Rule{ip6, icmpv6, advertises, v.dropped(ForgedND)})
}

// fromGuestNoIPv6Rules are for who has no address yet: it looks for duplicates of the
// one that it will have, without an option (RFC 4862 section 5.4.2) or with a nonce
// (RFC 7527 section 4.1), and says what it listens to (RFC 3590).
func fromGuestNoIPv6Rules(n guest.NIC, v verdicts) (out []nft.Rule) {
	for _, a := range othersLinkLocals(n) {
		out = append(out, nft.Rule{ip6, icmpv6, solicits, target(a), v.dropped(ForgedND)})
	}
	for _, own := range ownTargets(n) {
		out = append(out,
			slices.Concat(nft.Rule{ip6, icmpv6, solicits, own}, alone(ndOptions), nft.Rule{v.Pass}),
			slices.Concat(nft.Rule{ip6, icmpv6, solicits, own}, alone(ndOptions+8), nft.Rule{nft.Transport(ndOptions).Is([]byte{ndNonce, 1}), v.Pass}))
	}
	return append(out,
		nft.Rule{ip6, icmpv6, solicits, v.dropped(ForgedND)},
		nft.Rule{ip6, icmpv6, nft.ICMPv6Type.Is(routerSolicitation), v.dropped(RouterSolicitation)},
		nft.Rule{ip6, icmpv6, nft.ICMPv6Type.Is(mldv1Report), v.Pass},
		nft.Rule{ip6, icmpv6, nft.ICMPv6Type.Is(mldv2Report), v.Pass},
		nft.Rule{v.dropped(ForgedIP)})
}

// toGuest6 keeps the pod network's routers and DHCPv6 from the VM: it is told of the
// router by us.
func toGuest6(n guest.NIC, v verdicts) []nft.Chain {
	if n.IPv6 == nil {
		return nil
	}
	return []nft.Chain{{Name: toGuestIPv6, Rules: slices.Concat([]nft.Rule{
		{ip6, udp, nft.IP6NextHeader.Is(nft.UDP), nft.UDPDestination.NotIn(dhcp6ClientPort, dhcp6ServerPort), v.Pass},
	}, hidingFragments(v), []nft.Rule{
		{ip6, laterFragment6, notAH, v.Pass},
		{ip6, udp, nft.UDPDestination.Is(dhcp6ServerPort), v.dropped(DHCPClient)},
		{ip6, udp, nft.UDPDestination.Is(dhcp6ClientPort), v.dropped(DHCPServer)},
		{ip6, udp, nft.UDPDestination.Not(dhcp6ServerPort), v.Pass},
	}, routerRules(v), []nft.Rule{
		{ip6, icmpv6, nft.ICMPv6Type.Not(routerAdvertisement), v.Pass},
	}, otherRules(v, ip6, nft.ICMPv6))}}
}

// routerRules keep off what hosts ask routers, and what these tell them.
func routerRules(v verdicts) []nft.Rule {
	return []nft.Rule{
		{ip6, icmpv6, nft.ICMPv6Type.Is(routerSolicitation), v.dropped(RouterSolicitation)},
		{ip6, icmpv6, nft.ICMPv6Type.Is(routerAdvertisement), v.dropped(RouterAdvertisement)},
		{ip6, icmpv6, nft.ICMPv6Type.Is(redirect), v.dropped(Redirect)},
	}
}

// hidingFragments drops fragments in which extension headers come first. They can
// fill the first fragment, so that what is ICMPv6 or UDP in the second is of a type
// or for a port that nobody sees, and the kernel takes the second's own word for
// what it is. Without them the first fragment, which is 8 bytes at least, has both.
// RFC 7112 wants the same of hosts.
func hidingFragments(v verdicts) (out []nft.Rule) {
	for _, header := range []uint8{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT, unix.IPPROTO_DSTOPTS} {
		out = append(out, nft.Rule{ip6, nft.IP6FragmentNextHeader.Is(header), v.dropped(Malformed)})
	}
	return out
}

// alone matches a packet with nothing but so many bytes of ICMPv6 after its header.
func alone(length int) nft.Rule {
	return nft.Rule{nft.IP6Length.Is(uint16(length)), nft.IP6NextHeader.Is(nft.ICMPv6)}
}

// target matches whom a solicitation or an advertisement is about.
func target(a netip.Addr) nft.Part { return nft.Transport(ndTarget).Is(a.AsSlice()) }

// ownTargets match the addresses that the VM has, or may choose.
func ownTargets(n guest.NIC) []nft.Part {
	return []nft.Part{target(n.IPv6.Address.Addr()), nft.Transport(ndTarget).Is(linkLocals.Addr().AsSlice()[:linkLocals.Bits()/8])}
}

// linkLayer matches a first option of that kind with that MAC.
func linkLayer(kind byte, m mac.Addr) nft.Part { return nft.Transport(ndOptions).Is(option(kind, m)) }

func option(kind byte, m mac.Addr) []byte {
	return append([]byte{kind, 1}, m[:]...) // its length is in units of 8 bytes
}
