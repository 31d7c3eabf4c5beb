package guard

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Chains for IPv4. Rules about ports and types come behind one for later fragments,
// which have none: in these the kernel would take for them what is in their place.
// What is in a later fragment can't change them when the packet is put together,
// since fragments begin at multiples of eight bytes. A first one that is too short
// to have them is malformed.
const (
	fromGuestIPv4    = FromGuestChain + "_ip"
	fromGuestOwnIPv4 = FromGuestChain + "_own_ip" // from one of the VM's addresses
	fromGuestARP     = FromGuestChain + "_arp"    // well-formed
	toGuestIPv4      = ToGuestChain + "_ip"
)

const (
	dhcpServerPort = 67
	dhcpClientPort = 68
)

// Types of ICMP (RFC 792, RFC 1256).
const (
	icmpRedirect            = 5
	icmpRouterAdvertisement = 9
	icmpRouterSolicitation  = 10
)

// igmpHostTypes are those by which a host says what it listens to, by version 3, 2
// and 1 (RFC 3376 section 4). What else there is is sent by routers: queries, DVMRP,
// PIM version 1 and multicast router discovery. A switch that snoops
// sends all multicasts to whoever sends such.
var igmpHostTypes = []uint8{0x22, 0x16, 0x17, 0x12}

var (
	laterFragment = nft.IPFragmentOffset.Not(0)
	firstFragment = nft.IPFragmentOffset.Is(0) // or a whole packet
)

func addresses4(n guest.NIC) (out []netip.Addr) {
	if n.IPv4 != nil {
		for _, a := range n.IPv4.Addresses {
			out = append(out, a.Addr())
		}
	}
	return out
}

func fromGuest4(n guest.NIC, v verdicts) []nft.Chain {
	if n.IPv4 == nil {
		return nil
	}
	return []nft.Chain{
		{Name: fromGuestIPv4, Rules: fromGuestIPv4Rules(n, v)},
		{Name: fromGuestOwnIPv4, Rules: fromGuestOwnIPv4Rules(v)},
		{Name: fromGuestARP, Rules: fromGuestARPRules(n, v)},
	}
}

func fromGuestIPv4Rules(n guest.NIC, v verdicts) (out []nft.Rule) {
	for _, a := range addresses4(n) {
		out = append(out, nft.Rule{ip, nft.IPSource.Is(a), nft.GoTo(fromGuestOwnIPv4)})
	}
	none := nft.IPSource.Is(netip.IPv4Unspecified())
	out = append(out, nft.Rule{ip, none, firstFragment, udp, nft.UDPDestination.Is(dhcpServerPort), v.dropped(DHCPClient)})
	// A host that has no address yet may say what it listens to (RFC 3376 section 4.2.13).
	for _, t := range igmpHostTypes {
		out = append(out, nft.Rule{ip, none, firstFragment, igmp, nft.IGMPType.Is(t), v.Pass})
	}
	return append(out, nft.Rule{v.dropped(ForgedIP)})
}

func fromGuestOwnIPv4Rules(v verdicts) []nft.Rule {
	var host []nft.Rule
	for _, t := range igmpHostTypes {
		host = append(host, nft.Rule{ip, igmp, nft.IGMPType.Is(t), v.Pass})
	}
	return slices.Concat([]nft.Rule{
		{ip, laterFragment, notAH, v.Pass},
		// Most clients do not look which port a server sends from.
		{ip, udp, nft.UDPDestination.NotIn(dhcpServerPort, dhcpClientPort), nft.UDPSource.Not(dhcpServerPort), v.Pass},
		{ip, udp, nft.UDPSource.Is(dhcpServerPort), v.dropped(DHCPServer)},
		{ip, udp, nft.UDPDestination.Is(dhcpClientPort), v.dropped(DHCPServer)},
		{ip, udp, nft.UDPDestination.Is(dhcpServerPort), v.dropped(DHCPClient)},
	}, icmpRules(v), host, []nft.Rule{{ip, igmp, v.dropped(MulticastRouter)}}, otherRules(v, ip, nft.ICMP))
}

func toGuest4(n guest.NIC, v verdicts) []nft.Chain {
	if n.IPv4 == nil {
		return nil
	}
	return []nft.Chain{{Name: toGuestIPv4, Rules: slices.Concat([]nft.Rule{
		{ip, laterFragment, notAH, v.Pass},
		{ip, udp, nft.UDPDestination.NotIn(dhcpServerPort, dhcpClientPort), v.Pass},
		{ip, udp, nft.UDPDestination.Is(dhcpServerPort), v.dropped(DHCPClient)},
		{ip, udp, nft.UDPDestination.Is(dhcpClientPort), v.dropped(DHCPServer)},
	}, icmpRules(v), otherRules(v, ip, nft.ICMP))}}
}

// icmpRules keep off what routers tell hosts: the VM is told of its router by us.
func icmpRules(v verdicts) []nft.Rule {
	return []nft.Rule{
		{ip, icmp, nft.ICMPType.Not(icmpRedirect), nft.ICMPType.Not(icmpRouterAdvertisement), nft.ICMPType.Not(icmpRouterSolicitation), v.Pass},
		{ip, icmp, nft.ICMPType.Is(icmpRedirect), v.dropped(Redirect)},
		{ip, icmp, nft.ICMPType.Is(icmpRouterAdvertisement), v.dropped(RouterAdvertisement)},
		{ip, icmp, nft.ICMPType.Is(icmpRouterSolicitation), v.dropped(RouterSolicitation)},
	}
}

func fromGuestARPRules(n guest.NIC, v verdicts) (out []nft.Rule) {
	sender := nft.ARPSenderMAC.Is(n.MAC)
	for _, a := range addresses4(n) {
		out = append(out,
			nft.Rule{arp, sender, nft.ARPSenderIP.Is(a), v.Pass},
			// A probe for duplicates asks from no address (RFC 5227 section 1.1). Whose
			// address it asks for would take it for taken (section 2.1.1).
			nft.Rule{arp, nft.ARPOperation.Is(nft.Request), sender, nft.ARPSenderIP.Is(netip.IPv4Unspecified()), nft.ARPTargetIP.Is(a), v.Pass})
	}
	return append(out, nft.Rule{v.dropped(ForgedARP)})
}

// wellFormedARP matches a request or a reply for IPv4 on Ethernet that has all of
// its fields: the kernel finds no last one in a frame that is shorter.
var wellFormedARP = nft.Rule{
	nft.ARPHardware.Is(1), nft.ARPProtocol.Is(nft.IP), nft.ARPHardwareLength.Is(6), nft.ARPProtocolLength.Is(4),
	nft.ARPOperation.In(nft.Request, nft.Reply), nft.ARPTargetIP.AtLeast(netip.IPv4Unspecified()),
}

// announcement matches the reverse request (RFC 903) by which QEMU tells the
// network's bridges where the VM is after a migration: of its MAC, for its MAC,
// without addresses.
func announcement(m mac.Addr) nft.Rule {
	own := append(m[:], 0, 0, 0, 0)
	return nft.Rule{
		nft.Network(0).Is([]byte{0, 1, 8, 0, 6, 4, 0, 3}), nft.Network(8).Is(own), nft.Network(18).Is(own),
	}
}
