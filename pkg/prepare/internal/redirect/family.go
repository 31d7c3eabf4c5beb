package redirect

import (
	"net/netip"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// family is what rules about IPv4 and about IPv6 differ in.
type family struct {
	suffix              string // of the names of chains and sets
	untagged            nft.Part
	is                  nft.Part // at an egress hook too; and of what a VLAN tag is before
	source, destination nft.Field[netip.Addr]
	address             nft.Datatype
	firstFragment       nft.Part // of several, which have one to know them by
	laterFragment       nft.Part
	datagram            []nft.Operand // what its fragments have in common: source, protocol (by RFC 8200 it may differ, and then both sides get them) and number
	number              nft.Datatype  // of that number
	datagramFields      nft.Fields
	notEchoRequest      nft.Rule
	dhcpServer          nft.Rule // what one sends

	errors                              []nft.Rule // they quote a packet
	icmpType, icmpCode                  nft.Field[uint8]
	sourceInHeader, destinationInHeader uint32 // where they are
}

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const (
	echoRequest         = 8
	echoRequest6        = 128
	routerAdvertisement = 134
)

var families = []family{{
	"_ip", nft.EtherType.Is(nft.IP), nft.EtherProtocol.Is(nft.IP), nft.IPSource, nft.IPDestination, nft.IPv4Addr,
	nft.IPBegun, nft.IPFragmentOffset.Not(0),
	[]nft.Operand{nft.IPSource, nft.IPProtocol, nft.IPID},
	nft.Number16, nft.IPDatagram,
	nft.Rule{nft.L4Protocol.Is(nft.ICMP), nft.ICMPType.Not(echoRequest)},
	nft.Rule{udp, nft.UDPSource.Is(67), nft.UDPDestination.Is(68)},
	[]nft.Rule{{nft.L4Protocol.Is(nft.ICMP), nft.ICMPType.Is(3)}, {nft.L4Protocol.Is(nft.ICMP), nft.ICMPType.In(11, 12)}},
	nft.ICMPType, nft.ICMPCode, 12, 16,
}, {
	"_ip6", nft.EtherType.Is(nft.IP6), nft.EtherProtocol.Is(nft.IP6), nft.IP6Source, nft.IP6Destination, nft.IPv6Addr,
	nft.IP6FragmentOffset.Is(0), nft.IP6FragmentOffset.Not(0),
	[]nft.Operand{nft.IP6Source, nft.IP6FragmentNextHeader, nft.IP6FragmentID},
	nft.Number32, nft.IP6Datagram,
	nft.Rule{nft.L4Protocol.Is(nft.ICMPv6), nft.ICMPv6Type.Not(echoRequest6)},
	nft.Rule{udp, nft.UDPSource.Is(547), nft.UDPDestination.Is(546)},
	[]nft.Rule{{nft.L4Protocol.Is(nft.ICMPv6), nft.ICMPv6Type.In(1, 4)}},
	nft.ICMPv6Type, nft.ICMPv6Code, 8, 24,
}}

// has reports whether the VM has addresses of the family.
func (f family) has(n guest.NIC) bool {
	if !n.Addressed {
		return true
	}
	if f.is4() {
		return n.IPv4 != nil
	}
	return n.IPv6 != nil
}

func (f family) is4() bool { return f.suffix == "_ip" }

// alias is the pair of the family; ok is false if there is none.
func (f family) alias(n guest.NIC) (a guest.Alias, ok bool) {
	i := slices.IndexFunc(n.Aliases, func(a guest.Alias) bool { return a.VM.Is4() == f.is4() })
	if i < 0 {
		return a, false
	}
	return n.Aliases[i], true
}

// addresses are the VM's, but for the link-local ones that it chooses.
func (f family) addresses(n guest.NIC) (out []netip.Addr) {
	if !f.is4() {
		return []netip.Addr{n.IPv6.Address.Addr()}
	}
	for _, a := range n.IPv4.Addresses {
		out = append(out, a.Addr())
	}
	return out
}

// own is the VM's address that goes with the alias.
func (f family) own(n guest.NIC) netip.Addr {
	if f.is4() {
		return n.IPv4.Address.Addr()
	}
	return n.IPv6.Address.Addr()
}

// flows are connections of the pod, or of the VM: the peer's address, the protocol, the
// peer's port and the own one.
func (f family) flows(whose string) nft.Set {
	return nft.Set{
		Name: whose + "_flows" + f.suffix, Key: []nft.Datatype{f.address, nft.InetProto, nft.InetService, nft.InetService},
		Timeout: openTCP, Size: maxFlows,
	}
}

// accepted are connections that the VM has accepted. They have a set of their own: whoever
// sends to the VM may fill it, and what the VM opens is to be known all the same.
func (f family) accepted() nft.Set {
	s := f.flows(vms)
	s.Name, s.Size = vms+"_accepted"+f.suffix, maxAccepted
	return s
}

// fragments are packets of which one side gets the fragments: the peer's address, the
// protocol and the peer's number of the packet, which another protocol's may have, too.
func (f family) fragments(whose string) nft.Set {
	return nft.Set{
		Name: whose + "_fragments" + f.suffix, Key: []nft.Datatype{f.address, nft.InetProto, f.number}, Of: f.datagramFields,
		Timeout: fragmented, Size: maxFragments,
	}
}

// fragmenting notes a packet's first fragment, for one side or for both.
func (f family) fragmenting(whose ...string) nft.Rule {
	rule := nft.Rule{f.is, f.firstFragment}
	for _, side := range whose {
		rule = append(rule, nft.UpdateSet(f.fragments(side), 0, f.datagram...))
	}
	return rule
}

// ofFragments are rules for later fragments, which have no ports: they go where the
// packet's first one went. A stack to which both sides' went would be full of the
// other's, which never become whole, and could put its own together no more.
func (f family) ofFragments(toVM, toPod nft.Rule) []nft.Rule {
	in := func(whose string) nft.Part { return nft.InSet(f.fragments(whose), f.datagram...) }
	notIn := func(whose string) nft.Part { return nft.NotInSet(f.fragments(whose), f.datagram...) }
	return []nft.Rule{
		append(nft.Rule{f.is, in(vms), notIn(pods)}, toVM...),
		append(nft.Rule{f.is, in(pods), notIn(vms)}, toPod...),
		{nft.GoTo(shared)},
	}
}

// Whose flows and ports they are, in the names of sets.
const (
	pods = "pod"
	vms  = "vm"
)

// incoming and outgoing are a frame's fields in the order of a flow's.
func (f family) incoming() []nft.Operand {
	return []nft.Operand{f.source, nft.L4Protocol, nft.SourcePort, nft.DestinationPort}
}

func (f family) outgoing() []nft.Operand {
	return []nft.Operand{f.destination, nft.L4Protocol, nft.DestinationPort, nft.SourcePort}
}

var (
	tcp = nft.L4Protocol.Is(nft.TCP)
	udp = nft.L4Protocol.Is(nft.UDP)
)
