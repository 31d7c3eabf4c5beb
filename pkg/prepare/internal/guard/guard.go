// Package guard has the port guard's rules, which keep the VM's network and the
// pod's apart, and the kernel's answers for neighbors, made of what the VM gets. A
// datapath says where they hook.
package guard

import (
	"fmt"
	"slices"

	"github.com/virt-launcher-net/virt-launcher-net/pkg/guest"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/mac"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare/internal/nft"
)

// Direction is which way a frame goes.
type Direction string

// The directions.
const (
	FromVM  Direction = "from_guest"
	ToVM    Direction = "to_guest"
	FromPod Direction = "from_pod" // where the VM and the pod share addresses
)

// Reason is why the port guard keeps a frame from crossing.
type Reason string

// The reasons. docs/operations.md tells which of them a guest that means no
// harm causes.
const (
	ForgedMAC           Reason = "forged-mac"           // the Ethernet source is not the VM's
	ForgedIP            Reason = "forged-ip"            // the IPv4 or IPv6 source is not the VM's
	ForgedARP           Reason = "forged-arp"           // ARP that speaks, or asks for duplicates, of an address that is not the VM's
	ForgedND            Reason = "forged-nd"            // neighbor discovery that does, or that hides whom it speaks of
	DHCPServer          Reason = "dhcp-server"          // what DHCP and DHCPv6 servers send
	DHCPClient          Reason = "dhcp-client"          // what their clients send; the VM's are answered on the tap
	RouterAdvertisement Reason = "router-advertisement" // of ICMPv6 or ICMP (RFC 1256)
	RouterSolicitation  Reason = "router-solicitation"  // likewise; the VM's are answered on the tap
	Redirect            Reason = "redirect"             // of ICMPv6 or ICMP
	MulticastRouter     Reason = "multicast-router"     // queries of IGMP and MLD, and what else only multicast routers send by these
	Malformed           Reason = "malformed"            // headers that are wrong, or that hide what comes behind them
	NoIPv4              Reason = "no-ipv4"              // IPv4 and ARP where the VM has no IPv4
	NoIPv6              Reason = "no-ipv6"              // IPv6 where the VM has none
	OwnMAC              Reason = "own-mac"              // a broadcast or multicast from the network with the VM's MAC, as some networks send its own back
	PodPort             Reason = "pod-port"             // from a port that is kept for the pod, whose answers the VM would not get
	PodConnection       Reason = "pod-connection"       // of a connection that the pod has with the same peer by the same ports
	TooManyConnections  Reason = "too-many-connections" // is let go, but there is no room to note that its answers are the sender's
	OtherProtocol       Reason = "other-protocol"       // neither IP nor ARP (VLAN tags, 802.1X, …), or AH
)

// Counter is how much the port guard kept from crossing in a direction for a reason.
type Counter struct {
	Direction Direction `json:"direction"`
	Reason    Reason    `json:"reason"`
	Packets   uint64    `json:"packets"`
	Bytes     uint64    `json:"bytes"`
}

// label is what a rule's drops are counted as.
type label struct {
	direction Direction
	reason    Reason
}

// Dropped drops a frame that goes somewhere, and counts it.
func Dropped(where Direction, why Reason) nft.Part { return Kept(where, why, nft.Drop) }

// Kept counts a frame as dropped on its way, and then does what is to be done with it.
func Kept(where Direction, why Reason, verdict nft.Part) nft.Part {
	return nft.Judged(label{where, why}, verdict)
}

// Outcome is what becomes of frames that are judged: of those that may pass, and of
// those that may not, which are counted before.
type Outcome struct{ Pass, Drop nft.Part }

// InPlace is the outcome where frames go on by themselves if they are let.
var InPlace = Outcome{nft.Accept, nft.Drop}

// verdicts are the outcome for frames that go in a direction.
type verdicts struct {
	Outcome
	direction Direction
}

func (v verdicts) dropped(why Reason) nft.Part { return Kept(v.direction, why, v.Drop) }

// Counters returns the counters of a table of which the port guard is a part, as
// [nft.CounterReader.Counters] does.
func Counters(r *nft.CounterReader, t nft.Table) ([]Counter, error) {
	counted, err := r.Counters(t)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", t, err)
	}
	var out []Counter
	for _, c := range counted {
		if l, ours := c.Label.(label); ours {
			out = append(out, Counter{l.direction, l.reason, c.Packets, c.Bytes})
		}
	}
	return out, nil
}

// Chains that judge what the VM sends, and what is sent to it. Those that they go on
// to begin with their names.
const (
	FromGuestChain = "from_guest"
	ToGuestChain   = "to_guest"
)

// FromGuest returns the chains that judge what the VM of the NIC sends, the first of
// them being where they begin: its MAC and addresses alone leave, and DHCP, which is
// spoken on the tap alone, does not. TCP goes first, which is most of what there is.
// On a network without IPAM the VM may have any address, but one MAC, and what passes
// comes back to the rule that jumped here.
func FromGuest(n guest.NIC, o Outcome) []nft.Chain {
	v := verdicts{o, FromVM}
	rules := []nft.Rule{{nft.EtherSource.Not(n.MAC), v.dropped(ForgedMAC)}}
	if !n.Addressed {
		return []nft.Chain{{Name: FromGuestChain, Rules: rules}}
	}
	for _, a := range addresses4(n) {
		rules = append(rules, nft.Rule{ip, tcp, nft.IPSource.Is(a), v.Pass})
	}
	if n.IPv6 != nil {
		rules = append(rules, nft.Rule{ip6, tcp, nft.IP6NextHeader.Is(nft.TCP), nft.IP6Source.Is(n.IPv6.Address.Addr()), v.Pass})
	}
	rules = slices.Concat(rules, families(n, v, nft.GoTo(fromGuestARP)), []nft.Rule{
		append(append(nft.Rule{nft.EtherType.Is(nft.RARP)}, announcement(n.MAC)...), v.Pass),
		{v.dropped(OtherProtocol)},
	})
	return slices.Concat([]nft.Chain{{Name: FromGuestChain, Rules: rules}}, fromGuest4(n, v), fromGuest6(n, v))
}

// ToGroup matches what is for more than one, by the bit of group addresses (IEEE 802).
var ToGroup = nft.EtherDestination.Masked(mac.Addr{1}).Is(mac.Addr{1})

// ToBridges matches what is to one of the sixteen MACs, from Bridges on, that are for
// bridges alone (IEEE 802.1Q table 8-1). Whatever it is, one that does not pass it on
// takes it for its own host's stack, past its hooks (br_handle_frame).
var (
	Bridges   = mac.Addr{0x01, 0x80, 0xc2}
	ToBridges = nft.EtherDestination.Masked(mac.Addr{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}).Is(Bridges)
)

// ToGuest returns the chains that judge what goes to the VM of the NIC, as FromGuest
// does; none on a network without IPAM.
func ToGuest(n guest.NIC, o Outcome) []nft.Chain {
	v := verdicts{o, ToVM}
	if !n.Addressed {
		return nil
	}
	rules := []nft.Rule{{nft.EtherSource.Is(n.MAC), ToGroup, v.dropped(OwnMAC)}}
	if n.IPv4 != nil {
		rules = append(rules, nft.Rule{ip, tcp, v.Pass})
	}
	if n.IPv6 != nil {
		rules = append(rules, nft.Rule{ip6, tcp, nft.IP6NextHeader.Is(nft.TCP), v.Pass})
	}
	rules = slices.Concat(rules, families(n, v, v.Pass), []nft.Rule{{v.dropped(OtherProtocol)}})
	return slices.Concat([]nft.Chain{{Name: ToGuestChain, Rules: rules}}, toGuest4(n, v), toGuest6(n, v))
}

// families sends frames of the address families that the VM has to their chains, and
// ARP messages that are whole to wellFormed.
func families(n guest.NIC, v verdicts, wellFormed nft.Part) []nft.Rule {
	rules := []nft.Rule{{ip, v.dropped(NoIPv4)}, {arp, v.dropped(NoIPv4)}}
	if n.IPv4 != nil {
		rules = []nft.Rule{
			{ip, nft.GoTo(string(v.direction) + "_ip")},
			append(append(nft.Rule{arp}, wellFormedARP...), wellFormed),
			{arp, v.dropped(Malformed)},
		}
	}
	if n.IPv6 != nil {
		return append(rules, nft.Rule{ip6, nft.GoTo(string(v.direction) + "_ip6")})
	}
	return append(rules, nft.Rule{ip6, v.dropped(NoIPv6)})
}

// otherRules come last in a family. UDP and control messages that are left by then are
// too short to have a port, or a type.
func otherRules(v verdicts, family nft.Part, control nft.Protocol) []nft.Rule {
	return []nft.Rule{
		{family, nft.L4Protocol.Is(nft.AH), v.dropped(OtherProtocol)},
		{family, nft.L4Protocol.Not(nft.UDP), nft.L4Protocol.Not(control), v.Pass},
		{v.dropped(Malformed)},
	}
}

// What rules begin with.
var (
	ip  = nft.EtherType.Is(nft.IP)
	ip6 = nft.EtherType.Is(nft.IP6)
	arp = nft.EtherType.Is(nft.ARP)

	tcp    = nft.L4Protocol.Is(nft.TCP)
	udp    = nft.L4Protocol.Is(nft.UDP)
	icmp   = nft.L4Protocol.Is(nft.ICMP)
	igmp   = nft.L4Protocol.Is(nft.IGMP)
	icmpv6 = nft.L4Protocol.Is(nft.ICMPv6)
	notAH  = nft.L4Protocol.Not(nft.AH)
)
