package guard

import (
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Most matches frames of a family and a protocol that the port guard lets pass in any
// case. All together are most of what there is: a datapath that asks for them first, in
// the family netdev at an ingress hook, saves the guard's chains. The protocol comes
// first, which most often differs, and is cheap to ask for.
type Most struct {
	Is4      bool
	Protocol nft.Protocol
	Match    nft.Rule
}

// MostFromGuest match TCP, and UDP but for that of DHCP, from the VM's MAC and the
// address that it is given, to a MAC that is neither the tap's nor a group's.
func MostFromGuest(n guest.NIC) (out []Most) {
	for _, f := range mostFamilies(n) {
		begin := func(p nft.Protocol) nft.Rule {
			return append(f.begin(p, nft.PacketType.Is(nft.ToOther), nft.EtherSource.Is(n.MAC)), f.own)
		}
		out = append(out,
			Most{f.is4, nft.TCP, begin(nft.TCP)},
			Most{f.is4, nft.UDP, append(begin(nft.UDP), f.notToDHCP(), nft.UDPSource.Not(f.server))})
	}
	return out
}

// MostToGuest match TCP, and UDP but for that of DHCP, that is to the VM, as to says.
func MostToGuest(n guest.NIC, to nft.Part) (out []Most) {
	for _, f := range mostFamilies(n) {
		out = append(out,
			Most{f.is4, nft.TCP, f.begin(nft.TCP, to)},
			Most{f.is4, nft.UDP, append(f.begin(nft.UDP, to), f.notToDHCP())})
	}
	return out
}

// mostFamily is what IPv4 and IPv6 differ in.
type mostFamily struct {
	is4            bool
	untagged       nft.Part
	own            nft.Part
	server, client uint16 // ports of DHCP
}

// mostFamilies are those that the VM has addresses of.
func mostFamilies(n guest.NIC) (out []mostFamily) {
	if n.IPv4 != nil {
		out = append(out, mostFamily{true, ip, nft.IPSource.Is(n.IPv4.Address.Addr()), dhcpServerPort, dhcpClientPort})
	}
	if n.IPv6 != nil {
		out = append(out, mostFamily{false, ip6, nft.IP6Source.Is(n.IPv6.Address.Addr()), dhcp6ServerPort, dhcp6ClientPort})
	}
	return out
}

// begin is what each of the family's begins with. Behind extension headers nothing is
// passed in any case.
func (f mostFamily) begin(p nft.Protocol, where ...nft.Part) nft.Rule {
	rule := slices.Concat(nft.Rule{nft.L4Protocol.Is(p)}, where, nft.Rule{f.untagged})
	if !f.is4 {
		rule = append(rule, nft.IP6NextHeader.Is(p))
	}
	return rule
}

func (f mostFamily) notToDHCP() nft.Part {
	return nft.UDPDestination.NotIn(min(f.server, f.client), max(f.server, f.client))
}
