package prepare

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Direction is which way a frame goes.
type Direction string

// The directions.
const (
	FromGuest Direction = "from_guest"
	ToGuest   Direction = "to_guest"
)

// Reason is why the port guard keeps a frame from crossing.
type Reason string

// The reasons. docs/operations.md tells which of them a guest that means no
// harm causes.
const (
	ForgedMAC           Reason = "forged-mac"           // the Ethernet source is not the VM's
	ForgedIP            Reason = "forged-ip"            // the IPv4 or IPv6 source is not the VM's
	ForgedARP           Reason = "forged-arp"           // ARP that speaks, or asks for duplicates, of an address that is not the VM's
	ForgedND            Reason = "forged-nd"            // neighbour discovery that does, or that hides whom it speaks of
	DHCPServer          Reason = "dhcp-server"          // what DHCP and DHCPv6 servers send
	DHCPClient          Reason = "dhcp-client"          // what their clients send; the VM's are answered on the tap
	RouterAdvertisement Reason = "router-advertisement" // of ICMPv6 or ICMP (RFC 1256)
	RouterSolicitation  Reason = "router-solicitation"  // likewise; the VM's are answered on the tap
	Redirect            Reason = "redirect"             // of ICMPv6 or ICMP
	MulticastRouter     Reason = "multicast-router"     // queries of IGMP and MLD, and what else only multicast routers send by these
	Malformed           Reason = "malformed"            // headers that are wrong, or that hide what comes behind them
	NoIPv4              Reason = "no-ipv4"              // IPv4 and ARP where the VM has no IPv4
	NoIPv6              Reason = "no-ipv6"              // IPv6 where the VM has none
	OwnMAC              Reason = "own-mac"              // comes from the network with the VM's MAC, as a bridge in hairpin mode sends its broadcasts back
	OtherProtocol       Reason = "other-protocol"       // neither IP nor ARP (VLAN tags, 802.1X, …), or AH
)

// dropKey is what a rule's drops are counted as.
type dropKey struct {
	direction Direction
	reason    Reason
}

// Chains that judge what the guest sends, and what is sent to it.
const (
	guardFirstChain = "from_guest"
	guardOnlyChain  = "prerouting"
	toGuestChain    = "to_guest"
)

// guard is the port guard: it keeps two worlds apart. From the tap only the
// VM's own MAC and addresses leave, and DHCP, which is spoken on the tap alone,
// crosses in neither direction. What the VM sends is judged before the bridge
// learns from it, so that forged MACs do not fill the bridge's table.
func (p Plan) guard() table {
	tap := p.Tap.Name
	g := table{family: bridgeFamily, name: tablePrefix + p.Interface.Name}
	if !p.Interface.Addressed() { // the VM may have any address, but one MAC
		g.chains = append([]chain{{name: guardOnlyChain, hook: "prerouting", rules: []rule{
			ruleOf(iif(tap), etherSource("!=", p.MAC), dropped(FromGuest, ForgedMAC)),
		}}}, p.podChains()...)
		return g
	}
	g.chains = slices.Concat(
		[]chain{{name: guardFirstChain, rules: p.fromGuest()}, {name: toGuestChain, rules: p.toGuest()}},
		p.ipv4Chains(), p.ipv6Chains(),
		[]chain{
			{name: "prerouting", hook: "prerouting", rules: append(p.bridgeGroupRules(), ruleOf(iif(tap), jump(guardFirstChain)))},
			{name: "forward", hook: "forward", rules: []rule{ruleOf(oif(tap), jump(toGuestChain))}},
		},
		p.podChains())
	return g
}

// podChains keep the pod's own stack from hearing and speaking on this bridge.
// It would make itself an address of any router's prefix (RFC 4862 section
// 5.5.3), the VM's among them. What it does not hear has crossed, or was dropped
// and counted, but for the groups that a bridge passes on to nobody.
func (p Plan) podChains() []chain {
	tap, uplink := p.Tap.Name, p.Bridge.Uplink
	var input []rule
	if p.Interface.Addressed() {
		input = p.bridgeGroupRules()
	}
	return []chain{
		{name: "input", hook: "input", rules: append(input, ruleOf(iif(tap), drop()), ruleOf(iif(uplink), drop()))},
		{name: "output", hook: "output", rules: []rule{ruleOf(oif(tap), drop()), ruleOf(oif(uplink), drop())}},
	}
}

// bridgeGroupRules drop what is to a group that bridges keep for themselves. What the
// bridge would pass on comes to prerouting, what it would hear to input.
func (p Plan) bridgeGroupRules() []rule {
	return []rule{
		ruleOf(iif(p.Tap.Name), toBridges(), notToSpanningTree(), dropped(FromGuest, OtherProtocol)),
		ruleOf(iif(p.Bridge.Uplink), toBridges(), notToSpanningTree(), dropped(ToGuest, OtherProtocol)),
	}
}

// fromGuest lets TCP go first, which is most of what there is.
func (p Plan) fromGuest() []rule {
	out := []rule{ruleOf(etherSource("!=", p.MAC), dropped(FromGuest, ForgedMAC))}
	for _, a := range p.ipv4() {
		out = append(out, ruleOf(etherType("ip"), isProtocol("tcp"), ipSource(a.Addr()), accept()))
	}
	if p.IPv6 != nil {
		out = append(out, ruleOf(etherType("ip6"), isProtocol("tcp"), nextHeader("tcp"), ip6Source(p.IPv6.Address.Addr()), accept()))
	}
	if len(p.ipv4()) > 0 {
		out = append(out,
			ruleOf(etherType("ip"), goTo(fromGuestIPv4)),
			ruleOf(etherType("arp"), wellFormedARP(), goTo(fromGuestARP)),
			ruleOf(etherType("arp"), dropped(FromGuest, Malformed)))
	} else {
		out = append(out,
			ruleOf(etherType("ip"), dropped(FromGuest, NoIPv4)),
			ruleOf(etherType("arp"), dropped(FromGuest, NoIPv4)))
	}
	if p.IPv6 != nil {
		out = append(out, ruleOf(etherType("ip6"), goTo(fromGuestIPv6)))
	} else {
		out = append(out, ruleOf(etherType("ip6"), dropped(FromGuest, NoIPv6)))
	}
	return append(out,
		ruleOf(etherType("0x8035"), announcement(p.MAC), accept()),
		ruleOf(dropped(FromGuest, OtherProtocol)))
}

func (p Plan) toGuest() []rule {
	out := []rule{ruleOf(etherSource("==", p.MAC), dropped(ToGuest, OwnMAC))}
	if len(p.ipv4()) > 0 {
		out = append(out, ruleOf(etherType("ip"), isProtocol("tcp"), accept()))
	}
	if p.IPv6 != nil {
		out = append(out, ruleOf(etherType("ip6"), isProtocol("tcp"), nextHeader("tcp"), accept()))
	}
	if len(p.ipv4()) > 0 {
		out = append(out,
			ruleOf(etherType("ip"), goTo(toGuestIPv4)),
			ruleOf(etherType("arp"), wellFormedARP(), accept()),
			ruleOf(etherType("arp"), dropped(ToGuest, Malformed)))
	} else {
		out = append(out,
			ruleOf(etherType("ip"), dropped(ToGuest, NoIPv4)),
			ruleOf(etherType("arp"), dropped(ToGuest, NoIPv4)))
	}
	if p.IPv6 != nil {
		out = append(out, ruleOf(etherType("ip6"), goTo(toGuestIPv6)))
	} else {
		out = append(out, ruleOf(etherType("ip6"), dropped(ToGuest, NoIPv6)))
	}
	return append(out, ruleOf(dropped(ToGuest, OtherProtocol)))
}

// bridgeGroup is the first of sixteen MACs that bridges keep for themselves
// (IEEE 802.1Q table 8-1): it is the spanning tree's, which a bridge without one
// passes on.
var bridgeGroup = []byte{0x01, 0x80, 0xc2, 0, 0, 0}

func toBridges() match {
	return match{text: "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00", exprs: compareMasked(
		&expr.Payload{DestRegister: unix.NFT_REG_1, Base: expr.PayloadBaseLLHeader, Offset: 0, Len: 6},
		[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}, bridgeGroup)}
}

func notToSpanningTree() match {
	return match{text: "ether daddr != 01:80:c2:00:00:00", exprs: unequal(comparePayload(expr.PayloadBaseLLHeader, 0, bridgeGroup))}
}

var unspecified4 = netip.IPv4Unspecified()
